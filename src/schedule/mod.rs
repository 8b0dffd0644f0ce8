//! Rules and timesteps make, for each step and rule: compute or broadcast.

//! Ctrl-C and the wish of the system to end (SIGINT, SIGTERM); of processes that a launcher started together SIGUSR1, too.
//!
//! Open MPI's `mpirun` returns 1 whatever ranks say once it was interrupted itself. It passes SIGUSR1 on to all ranks, and then
//! returns what they return.

use super::ExitStatus;
use super::terminal::Terminal;
use crate::collective::is_first_process;
#[cfg(unix)]
use crate::collective::launched;
#[cfg(unix)]
use signal_hook::consts::SIGUSR1;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;
use std::io;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

/// From now on the first of these signals asks the terminal's [`Stop`](crate::stop::Stop), which is looked at between
/// steps, and the second ends the process at once.
pub fn watch(terminal: &Terminal) {
    if let Err(error) = register(terminal) {
        // Signals then end the process as they do of themselves.
        terminal.detail(format!("Ctrl-C cannot be watched: {error}"));
    }
}

fn register(terminal: &Terminal) -> io::Result<()> {
    let once = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        // In this order: the first signal finds the flag down, the second up.
        flag::register_conditional_shutdown(signal, ExitStatus::Interrupted as i32, once.clone())?;
        flag::register(signal, once.clone())?;
        flag::register(signal, terminal.stop().flag())?;
    }
    // What `mpirun` sends behind it, as soon as the first rank has ended, is no second wish.
    #[cfg(unix)]
    if launched().is_some() {
        flag::register(SIGUSR1, terminal.stop().flag())?;
    }
    #[cfg(unix)]
    announce(terminal)?;
    Ok(())
}

/// Says at once that the signal has come: a step of a large model takes long.
#[cfg(unix)]
fn announce(terminal: &Terminal) -> io::Result<()> {
    use std::io::Read;
    use std::os::unix::net::UnixStream;
    if terminal.is_quiet() || !is_first_process() {
        return Ok(());
    }
    let (mut read, write) = UnixStream::pair()?;
    for signal in [SIGINT, SIGTERM] {
        signal_hook::low_level::pipe::register(signal, write.try_clone()?)?;
    }
    std::thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(move || {
            if read.read_exact(&mut [0]).is_ok() {
                super::terminal::say("stopping after the step at hand; once more ends at once");
            }
        })?;
    Ok(())
}

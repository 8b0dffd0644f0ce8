"use strict";
const play = document.getElementById("play");
if (play) {
  const main = document.getElementById("main");
  const frame = document.getElementById("frame");
  const number = document.getElementById("frame-number");
  const speed = document.getElementById("speed");
  for (const label of document.querySelectorAll(".needs-script")) label.hidden = false;

  function playing() {
    main.classList.toggle("still", !play.checked && main.style.getPropertyValue("--at") !== "");
  }

  play.addEventListener("change", () => {
    if (play.checked) main.style.removeProperty("--at");
    playing();
  });
  frame.addEventListener("input", () => {
    play.checked = false;
    main.style.setProperty("--at", frame.value);
    number.value = frame.value;
    playing();
  });
  speed.addEventListener("change", () => main.style.setProperty("--slow", speed.value));
  if (matchMedia("(prefers-reduced-motion: reduce)").matches) play.checked = false;
}

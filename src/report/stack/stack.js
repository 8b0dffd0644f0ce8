"use strict";
const branches = [...document.querySelectorAll(".branch")];
const filter = document.getElementById("filter");
const kinds = [...document.querySelectorAll("input[data-kind]")];

function show() {
  const wanted = filter.value.trim().toLowerCase();
  const chosen = new Set(kinds.filter((box) => box.checked).map((box) => box.dataset.kind));
  for (const branch of branches) {
    const named = wanted === "" || branch.textContent.toLowerCase().includes(wanted);
    branch.hidden = !named || !chosen.has(branch.dataset.kind);
  }
  for (const block of document.querySelectorAll(".block")) {
    block.hidden = !block.querySelector(".branch:not([hidden])");
  }
}

function fold(open) {
  for (const branch of branches) branch.open = open && !branch.hidden;
}

filter.addEventListener("input", show);
for (const box of kinds) box.addEventListener("change", show);
document.getElementById("open").addEventListener("click", () => fold(true));
document.getElementById("close").addEventListener("click", () => fold(false));

function unfold() {
  let name = location.hash.slice(1);
  try { name = decodeURIComponent(name); } catch { /* Not encoded. */ }
  const target = name && document.getElementById(name);
  if (target && target.matches(".branch")) {
    target.open = true;
    target.scrollIntoView();
  }
}

window.addEventListener("hashchange", unfold);
unfold();

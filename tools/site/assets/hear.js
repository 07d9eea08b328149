"use strict";
// Plays a sound where it is shown. Without this script, the link opens the sound.

const player = new Audio();
const links = [...document.querySelectorAll("a.sound")];
const show = () => links.forEach((link) => link.classList.toggle("playing", link.href === player.src && !player.paused));

["play", "pause", "ended"].forEach((change) => player.addEventListener(change, show));
links.forEach((link) => link.addEventListener("click", (event) => {
  event.preventDefault();
  const again = link.href === player.src && !player.paused;
  player.pause();
  if (again) return;
  player.src = link.href;
  player.play();
}));

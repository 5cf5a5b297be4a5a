"use strict";
// Before the page is drawn, so that nobody is shown one theme first and then the other.
try {
  const theme = localStorage.getItem("conclave-theme");
  if (theme === "light" || theme === "dark") document.documentElement.dataset.theme = theme;
} catch {
  // A browser that keeps nothing for pages shows the system's theme.
}

// As light or dark as Airflow, which keeps what a person chose under "theme".
"use strict";
(function () {
  function chosen() {
    try {
      return localStorage.getItem("theme");
    } catch (error) {
      return null; // A frame without an origin has no storage.
    }
  }
  function follow() {
    const theme = chosen();
    if (theme === "light" || theme === "dark") {
      document.documentElement.dataset.theme = theme;
    } else {
      delete document.documentElement.dataset.theme;
    }
  }
  follow();
  window.addEventListener("storage", follow);
})();

"use strict";

/** Light or dark: the reader's choice if there is one, else the system's. */
const theme = {
  system: window.matchMedia("(prefers-color-scheme: dark)"),

  get isDark() {
    const chosen = document.documentElement.dataset.theme;
    return chosen ? chosen === "dark" : theme.system.matches;
  },

  /** Binds the button; `changed` is called after every change. */
  start(button, changed) {
    const stored = theme.recall();
    if (stored) document.documentElement.dataset.theme = stored;
    const label = () => {
      button.textContent = theme.isDark ? "Light" : "Dark";
      button.setAttribute("aria-label", `Switch to the ${theme.isDark ? "light" : "dark"} theme`);
    };
    button.addEventListener("click", () => {
      document.documentElement.dataset.theme = theme.isDark ? "light" : "dark";
      theme.remember();
      label();
      changed();
    });
    theme.system.addEventListener("change", () => {
      label();
      changed();
    });
    label();
  },

  // A page opened from a file may be refused storage; the choice then lasts as long as the page.
  recall() {
    try {
      const stored = window.localStorage.getItem("sessionlake-theme");
      return stored === "dark" || stored === "light" ? stored : null;
    } catch {
      return null;
    }
  },

  remember() {
    try {
      window.localStorage.setItem("sessionlake-theme", document.documentElement.dataset.theme);
    } catch {
      return;
    }
  },
};

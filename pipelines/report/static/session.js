"use strict";

theme.start(document.getElementById("theme"), () => {});

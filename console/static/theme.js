// Before the first paint: the theme that was chosen, if the server does not know it yet.
"use strict";
try { const t = localStorage.getItem("theme"); if (t && !document.documentElement.dataset.theme) document.documentElement.dataset.theme = t; } catch { /* private mode */ }

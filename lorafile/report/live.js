// A page that reloads itself stays where its reader is: the place and what was opened outlive a reload.
(() => {
  "use strict";
  const key = `lorafile ${location.pathname}`;
  const opened = () => [...document.querySelectorAll("details")];
  try {
    const before = JSON.parse(sessionStorage.getItem(key) || "null");
    if (before) {
      opened().forEach((one, at) => { one.open = before.open.includes(at); });
      history.scrollRestoration = "manual";
      const back = () => scrollTo(0, before.top);
      back();
      addEventListener("load", () => setTimeout(back, 0));  // charts take their room first
    }
    addEventListener("pagehide", () => {
      const open = opened().flatMap((one, at) => (one.open ? [at] : []));
      sessionStorage.setItem(key, JSON.stringify({ top: scrollY, open }));
    });
  } catch (error) {
    // A browser that keeps nothing for files begins at the top.
  }
})();

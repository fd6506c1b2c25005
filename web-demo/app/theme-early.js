// A classic script, run before the first paint: the visitor's theme must not flash in late. theme.js does the rest.
try {
  const chosen = localStorage.getItem('tandem.theme');
  if (chosen === 'light' || chosen === 'dark') document.documentElement.dataset.theme = chosen;
} catch {
  // Storage can be forbidden; then the system's theme it is.
}

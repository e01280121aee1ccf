// Before the first paint: the reader's choice of light or dark, if there is one.
try {
  const theme = localStorage.getItem('dqrm.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // storage is blocked: the system's setting stands
}

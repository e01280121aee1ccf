// What the page remembers for its reader: small texts in localStorage. (Model files: worker-cache.js.)

/** @param {string} key @returns {string | null} the text, or null where there is none or storage is blocked */
export function recall(key) {
  try {
    return localStorage.getItem(`dqrm.${key}`);
  } catch {
    return null;
  }
}

/** @param {string} key @param {string | null} text null forgets it */
export function remember(key, text) {
  try {
    if (text === null) localStorage.removeItem(`dqrm.${key}`);
    else localStorage.setItem(`dqrm.${key}`, text);
  } catch {
    // storage is blocked or full: the page works, it only forgets
  }
}

// Model files kept for the next visit, in the browser's private file system (OPFS).
// A file's name says what it holds: source, version, size in bytes, and the name to show. One that is shorter than
// its name says was interrupted, and is removed.

const FOLDER = 'models';

async function folder() {
  const root = await navigator.storage.getDirectory();
  return root.getDirectoryHandle(FOLDER, { create: true });
}

/** FNV-1a of a text, as hex. @param {string} text */
function digest(text) {
  let hash = 0xcbf29ce484222325n;
  for (const byte of new TextEncoder().encode(text)) hash = BigInt.asUintN(64, (hash ^ BigInt(byte)) * 0x100000001b3n);
  return hash.toString(16).padStart(16, '0');
}

/** @param {{source: string, stamp: string, size: number, name: string}} file */
const key = ({ source, stamp, size, name }) => `${digest(source)}-${digest(stamp)}-${size}-${encodeURIComponent(name).slice(0, 120)}`;

/** What a key says, or null for a foreign file. @param {string} text */
function parsed(text) {
  const found = /^([0-9a-f]{16})-([0-9a-f]{16})-(\d+)-(.*)$/.exec(text);
  return found && { source: found[1], stamp: found[2], size: Number(found[3]), name: shown(found[4]) };
}

function shown(text) {
  try {
    return decodeURIComponent(text);
  } catch {
    return text;
  }
}

/** Bytes of a file, -1 for what is none, null for what is gone meanwhile. @param {any} handle */
async function sizeOf(handle) {
  if (handle.kind !== 'file') return -1;
  return handle.getFile().then(({ size }) => size, () => null);
}

/** The complete files, and how much room there is. */
export async function list() {
  if (!navigator.storage?.getDirectory) return { models: [], room: null };
  const models = [];
  const kept = await folder();
  for await (const [id, handle] of kept.entries()) {
    const facts = parsed(id);
    if (writing.has(id)) continue;
    const size = await sizeOf(handle);
    if (size === null) continue;
    if (facts && facts.size === size) models.push({ id, name: facts.name, size });
    else await kept.removeEntry(id, { recursive: true }).catch(() => {});
  }
  const { quota = 0, usage = 0 } = await navigator.storage.estimate();
  return { models: models.sort((a, b) => a.name.localeCompare(b.name)), room: Math.max(0, quota - usage) };
}

/** @param {{id: string}} given */
export async function remove({ id }) {
  await (await folder()).removeEntry(id);
  return list();
}

/** A kept file by its id. @param {string} id @returns {Promise<File>} */
export async function opened(id) {
  const handle = await (await folder()).getFileHandle(id);
  const file = await handle.getFile();
  if (file.size !== parsed(id)?.size) throw new Error('the kept file is incomplete; delete it and open the model again');
  return file;
}

/**
 * The id of a complete file from this source, in this version (any version where none is given); null where there is none,
 * and where the browser refuses its storage.
 * @param {string} source @param {string} [stamp]
 */
export async function find(source, stamp) {
  const { models } = await list().catch(() => ({ models: [] }));
  for (const { id } of models) {
    const facts = parsed(id);
    if (facts?.source === digest(source) && (stamp === undefined || facts.stamp === digest(stamp))) return id;
  }
  return null;
}

/** @type {Set<string>} files that are being written */
const writing = new Set();

/** A file being written while its bytes pass by. Trouble with storage ends the keeping, never the loading. */
export class Keeper {
  /** @type {any} */ #handle = null;
  #id = '';
  #source = '';
  #at = 0;
  /** @type {string | null} why the file is not kept */
  trouble = null;

  /** @param {{source: string, stamp: string, size: number, name: string}} file */
  static async create(file) {
    const keeper = new Keeper();
    try {
      if (!navigator.storage?.getDirectory) throw new Error('this browser keeps no files for pages');
      const { models, room } = await list();
      const id = key(file);
      if (models.some((kept) => kept.id === id)) return keeper;
      if (room !== null && room < file.size) throw new Error('the browser offers too little room');
      const kept = await folder();
      keeper.#id = id;
      keeper.#source = digest(file.source);
      writing.add(id);
      const handle = await kept.getFileHandle(id, { create: true });
      keeper.#handle = await handle.createSyncAccessHandle();
      keeper.#handle.truncate(0);
    } catch (error) {
      keeper.trouble = error.message;
      keeper.#close();
    }
    return keeper;
  }

  /** @param {Uint8Array} piece */
  write(piece) {
    if (!this.#handle) return;
    try {
      const written = this.#handle.write(piece, { at: this.#at });
      if (written < piece.length) throw new Error('the browser’s storage is full');
      this.#at += written;
    } catch (error) {
      this.trouble = error.message;
      this.#close();
    }
  }

  /** Lets go of the file; what fails is trouble. */
  #close() {
    const handle = this.#handle;
    this.#handle = null;
    for (const step of ['flush', 'close']) {
      try {
        handle?.[step]();
      } catch (error) {
        this.trouble ??= error.message;
      }
    }
  }

  /** Ends the writing: a file that is whole takes the place of other versions, one that is not wanted after all is removed. @param {boolean} wanted */
  async end(wanted) {
    if (this.#id === '') return;
    this.#close();
    try {
      const kept = await folder();
      const whole = wanted && !this.trouble;
      const gone = [];
      for await (const id of kept.keys()) {
        if (whole ? id !== this.#id && id.startsWith(`${this.#source}-`) : id === this.#id) gone.push(id);
      }
      for (const id of gone) await kept.removeEntry(id).catch(() => {});
    } catch (error) {
      this.trouble ??= error.message;
    } finally {
      writing.delete(this.#id);
    }
  }
}

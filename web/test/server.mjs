// Serves web/dist at / and the pages of tests at /test/ on 127.0.0.1, which browsers hold for secure.
import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
import { extname, join, normalize } from 'node:path';

const TYPES = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript; charset=utf-8',
  '.css': 'text/css; charset=utf-8',
  '.json': 'application/json',
  '.wasm': 'application/wasm',
  '.svg': 'image/svg+xml',
  '.png': 'image/png',
  '.tsv': 'text/tab-separated-values; charset=utf-8',
  '.csv': 'text/csv; charset=utf-8',
};

/** @returns {Promise<{base: string, close: () => void}>} */
export async function serve(dist, pages) {
  const server = createServer(async (request, response) => {
    let path = decodeURIComponent(new URL(request.url, 'http://localhost').pathname);
    let root = dist;
    if (path.startsWith('/test/')) {
      [root, path] = [pages, path.slice('/test'.length)];
    }
    if (path.endsWith('/')) path += 'index.html';
    const file = join(root, normalize(path)); // a normal absolute path has no `..`
    const headers = { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-cache' };
    const zipped = /\bgzip\b/.test(request.headers['accept-encoding'] ?? '') && !request.headers.range;
    try {
      const small = zipped ? await readFile(`${file}.gz`).catch(() => null) : null;
      const body = small ?? (await readFile(file));
      if (small) headers['content-encoding'] = 'gzip';
      response.writeHead(200, { ...headers, 'content-length': body.length }).end(request.method === 'HEAD' ? undefined : body);
    } catch {
      response.writeHead(404, { 'content-type': 'text/plain' }).end(`no ${path}`);
    }
  });
  await new Promise((ready) => server.listen(0, '127.0.0.1', ready));
  return { base: `http://127.0.0.1:${server.address().port}`, close: () => server.close() };
}

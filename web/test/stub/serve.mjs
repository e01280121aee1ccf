import { createServer } from 'node:http';
import { readFile } from 'node:fs/promises';
const page = new URL('../../page/', import.meta.url);
const stub = new URL('./', import.meta.url);
const types = { html: 'text/html; charset=utf-8', js: 'text/javascript', css: 'text/css', json: 'application/json', svg: 'image/svg+xml' };
const topics = ['gaming', 'sports', 'travel', 'food', 'fashion', 'beauty', 'cars', 'finance', 'technology', 'music', 'books', 'home', 'health', 'family', 'pets', 'films'];
const number = (name, label, kind, min, max) => ({ name, label, kind, type: 'number', min, max });
const words = (name, label, kind, values) => ({ name, label, kind, type: 'category', values });
const columns = [
  number('minutes', 'Minutes on the site', 'context', 0, 60), number('ads_seen', 'Ads seen today', 'context', 0, 40), number('pages', 'Pages visited', 'context', 1, 40), number('discount', 'Discount in percent', 'ad', 0, 50),
  words('device', 'Device', 'visitor', ['phone', 'tablet', 'laptop', 'desktop', 'television']),
  words('hour', 'Hour', 'context', Array.from({ length: 24 }, (_, i) => String(i))),
  words('weekday', 'Weekday', 'context', ['Monday', 'Tuesday', 'Wednesday', 'Thursday', 'Friday', 'Saturday', 'Sunday']),
  words('region', 'Region', 'visitor', ['Brazil', 'Canada', 'France', 'Germany', 'United Kingdom', 'United States']),
  words('age', 'Age', 'visitor', ['18-24', '25-34', '35-44', '45-54', '55-64', '65+']),
  { name: 'visitor', label: 'Visitor number', kind: 'visitor', type: 'id', count: 4000 },
  words('site', 'Site', 'context', [...topics, 'news', 'social', 'weather']),
  words('position', 'Place on the page', 'context', ['top', 'in text', 'side', 'bottom']),
  words('topic', 'Topic', 'ad', topics), words('brand', 'Brand', 'ad', ['Pixelforge', 'Owlbyte', 'Stride & Co', 'Peak Nine', 'Farway', 'Hearth', 'Oakline', 'Reelhouse']),
  words('format', 'Format', 'ad', ['text', 'image', 'video', 'carousel']), words('price', 'Price', 'ad', ['free', 'under 20', '20 to 100']),
  { name: 'ad', label: 'Ad number', kind: 'ad', type: 'id', count: 1024 },
  { name: 'interests', label: 'Interests', kind: 'visitor', type: 'set', values: topics },
];
const nouns = ['Gravel bike, free test ride', 'Cast-iron pan that lasts', 'Three months of films', 'Balcony tomatoes, by post', 'A puzzle game for two', 'Crime novels for winter', 'Running shoes, returned free', 'Electric car on trial'];
const ads = Array.from({ length: 128 }, (_, i) => ({ title: `${nouns[i % 8]} · ${columns[13].values[i >> 4]}`, values: { discount: i % 3 ? 0 : 20, topic: topics[i % 16], brand: columns[13].values[i >> 4], format: columns[14].values[i % 4], price: columns[15].values[i % 3], ad: `a${i}` } }));
const made = {
  '/model/clicks.json': () => JSON.stringify({ columns, ads, visitor: { minutes: 6, ads_seen: 4, pages: 5, device: 'phone', hour: '20', weekday: 'Saturday', region: 'Germany', age: '25-34', visitor: 'v0', site: 'gaming', position: 'in text', interests: ['gaming', 'films'] } }),
  '/model/clicks.int4.safetensors': () => { const header = Buffer.from(JSON.stringify({ t: { dtype: 'U8', shape: [1120000], data_offsets: [0, 1120000] } })); const b = Buffer.alloc(8 + header.length + 1120000); b.writeBigUInt64LE(BigInt(header.length)); header.copy(b, 8); return b; },
  '/model/clicks.fp32.safetensors': () => Buffer.alloc(8_700_000),
  '/pkg/dqrm_web.js': () => readFile(new URL('dqrm_web.js', stub)),
};
createServer(async (request, reply) => {
  const path = new URL(request.url, 'http://x').pathname.replace(/\/$/, '/index.html');
  try {
    const body = made[path] ? await made[path]() : await readFile(new URL('.' + path, page));
    reply.writeHead(200, { 'content-type': types[path.split('.').pop()] ?? 'application/octet-stream', 'content-length': Buffer.byteLength(body), 'cache-control': 'no-store' });
    reply.end(body);
  } catch { reply.writeHead(404).end('not found'); }
}).listen(Number(process.argv[2] ?? 8123), '127.0.0.1');

// Backstage's catalog backend on a database of its own, told over stdin what to do, one JSON object a line; answers on stdout, one line each.
//
//   {"do": "ingest", "file": "entities.ndjson"}   a full mutation; answers when every entity is processed and stitched: {"seconds"}
//   {"do": "change", "entity": {…}}               a delta mutation; answers when the REST API gives the new description: {"milliseconds"}
//   {"do": "dump", "file": "final.ndjson"}        the final entities: {"entities"}
//
// The first line that it writes is {"ready": true}. It ends with its stdin. PEER_DATABASE_URL names the database.

import { createBackend } from '@backstage/backend-defaults';
import { coreServices, createBackendModule, createServiceFactory } from '@backstage/backend-plugin-api';
import { catalogProcessingExtensionPoint } from '@backstage/plugin-catalog-node';
import { ConfigReader } from '@backstage/config';
import { createInterface } from 'node:readline';
import { createServer } from 'node:net';
import { readFile, writeFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import pg from 'pg';

const LIMIT_MS = 1_800_000;

const port = await new Promise(resolve => {
  const probe = createServer().listen(0, '127.0.0.1', () => {
    const found = probe.address().port;
    probe.close(() => resolve(found));
  });
});
const url = new URL(process.env.PEER_DATABASE_URL);
const connection = {
  host: url.hostname,
  port: Number(url.port),
  user: decodeURIComponent(url.username),
  password: decodeURIComponent(url.password),
  database: url.pathname.slice(1),
};
const config = new ConfigReader({
  app: { baseUrl: `http://127.0.0.1:${port}` },
  backend: {
    baseUrl: `http://127.0.0.1:${port}`,
    listen: { host: '127.0.0.1', port },
    auth: { dangerouslyDisableDefaultAuthPolicy: true },
    database: { client: 'pg', pluginDivisionMode: 'schema', connection },
  },
});

let connect;
const provided = new Promise(resolve => (connect = resolve));
const provider = { getProviderName: () => 'loadtest', connect: async catalog => connect(catalog) };

const backend = createBackend();
backend.add(
  createServiceFactory({ service: coreServices.rootConfig, deps: {}, factory: () => config }),
);
backend.add(
  // What it logs goes to stderr: stdout is for answers.
  createServiceFactory({ service: coreServices.rootLogger, deps: {}, factory: () => logger() }),
);
backend.add(import('@backstage/plugin-catalog-backend'));
backend.add(
  createBackendModule({
    pluginId: 'catalog',
    moduleId: 'loadtest',
    register(env) {
      env.registerInit({
        deps: { catalog: catalogProcessingExtensionPoint },
        init: async ({ catalog }) => catalog.addEntityProvider(provider),
      });
    },
  }),
);
await backend.start();
const catalog = await provided;
const database = new pg.Client({ ...connection, options: '-c search_path=catalog' });
await database.connect();
const api = `http://127.0.0.1:${port}/api/catalog`;

function logger() {
  const write = level => (message, meta) => {
    if (level !== 'debug') process.stderr.write(`${level} ${message} ${meta ? JSON.stringify(meta) : ''}\n`);
  };
  const made = { error: write('error'), warn: write('warn'), info: write('info'), debug: write('debug') };
  return { ...made, child: () => logger() };
}

async function lines(file) {
  const text = await readFile(file, 'utf8');
  return text.split('\n').filter(Boolean).map(line => JSON.parse(line));
}

async function until(what, done, pauseMs) {
  const end = Date.now() + LIMIT_MS;
  while (!(await done())) {
    if (Date.now() > end) throw new Error(`${what}: not within ${LIMIT_MS / 1000} s`);
    await sleep(pauseMs);
  }
}

const actions = {
  async ingest({ file }) {
    const entities = (await lines(file)).map(entity => ({ entity }));
    const began = process.hrtime.bigint();
    await catalog.applyMutation({ type: 'full', entities });
    // Processed: it has a result. Stitched: nothing of it waits.
    await until('every entity stitched', async () => {
      const { rows } = await database.query(
        `select (select count(*) from refresh_state where result_hash is null)
              + (select count(*) from stitch_queue)
              + (select count(*) from refresh_state) - (select count(*) from final_entities where final_entity is not null) as waiting`,
      );
      return Number(rows[0].waiting) === 0;
    }, 250);
    return { seconds: Number(process.hrtime.bigint() - began) / 1e9 };
  },

  async change({ entity }) {
    const { kind, metadata } = entity;
    const path = [kind, metadata.namespace ?? 'default', metadata.name].map(encodeURIComponent).join('/');
    const began = process.hrtime.bigint();
    await catalog.applyMutation({ type: 'delta', added: [{ entity }], removed: [] });
    await until('the change readable', async () => {
      const answer = await fetch(`${api}/entities/by-name/${path}`);
      return answer.ok && (await answer.json()).metadata.description === metadata.description;
    }, 5);
    return { milliseconds: Number(process.hrtime.bigint() - began) / 1e6 };
  },

  async dump({ file }) {
    const answer = await fetch(`${api}/entities`);
    if (!answer.ok) throw new Error(`GET /entities: ${answer.status}`);
    const entities = await answer.json();
    await writeFile(file, entities.map(entity => `${JSON.stringify(entity)}\n`).join(''));
    return { entities: entities.length };
  },
};

const answer = value => process.stdout.write(`${JSON.stringify(value)}\n`);
answer({ ready: true });
for await (const line of createInterface({ input: process.stdin })) {
  const request = JSON.parse(line);
  try {
    answer(await actions[request.do](request));
  } catch (error) {
    answer({ error: String(error?.stack ?? error) });
  }
}
process.exit(0);

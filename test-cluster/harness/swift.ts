/**
 * A real S3 service for tests: OpenStack Swift with its s3api middleware (Debian's `python3-swift`), one device, one copy, in a folder of its own and on
 * free ports of 127.0.0.1: proxy, account, container and object server, under one parent. Neither memcached nor rsync nor root is needed.
 */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { get } from 'node:http';
import { tmpdir, userInfo } from 'node:os';
import { join } from 'node:path';
import { setTimeout as delay } from 'node:timers/promises';
import { freePort } from './ports.js';

/** Python imports for seconds where many others want the processor. */
const startTimeoutMs = 180_000;
const services = ['account', 'container', 'object'] as const;
type Service = (typeof services)[number] | 'proxy';

const running = new Set<ChildProcess>();
process.on('exit', () => {
  for (const child of running) child.kill('SIGKILL');
});

/**
 * Builds the rings (two partitions, one copy, one device), imports everything once, and forks the four servers, each with its configuration from the
 * folder and with the folder's swift.conf instead of the machine's. The servers end with their parent.
 */
const launcher = `
import ctypes, os, signal, sys
folder, ports = sys.argv[1], dict(zip(('account', 'container', 'object'), sys.argv[2:5]))
sys.path.insert(0, folder)
from swift.common import utils
utils.SWIFT_CONF_FILE = folder + '/swift.conf'
from swift.common.storage_policy import reload_storage_policies
reload_storage_policies()
from swift.common.ring import RingBuilder
from swift.common.wsgi import run_wsgi
import swift.account.server, swift.container.server, swift.obj.server, swift.proxy.server
import swift.common.middleware.s3api.s3api
for name, port in ports.items():
    if os.path.exists(folder + '/' + name + '.ring.gz'):
        continue
    builder = RingBuilder(1, 1, 0)
    builder.add_dev({'id': 0, 'region': 1, 'zone': 1, 'ip': '127.0.0.1', 'port': int(port), 'device': 'd1', 'weight': 1,
                     'replication_ip': '127.0.0.1', 'replication_port': int(port), 'meta': ''})
    builder.rebalance()
    builder.get_ring().save(folder + '/' + name + '.ring.gz')
parent = os.getpid()
for name in list(ports) + ['proxy']:
    if os.fork() == 0:
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() != parent:
            os._exit(1)
        code = run_wsgi(folder + '/' + name + '.conf', name + '-server', verbose=True)
        sys.exit(code)
os.wait()  # none of them ends by itself
sys.exit(1)
`;

/** tempauth insists on memcached; a proxy of one process can remember by itself. */
const cacheModule = `
import time

class Cache(object):
    def __init__(self):
        self.items = {}

    def get(self, key, *args, **kwargs):
        value, end = self.items.get(key, (None, 0))
        return value if end == 0 or end > time.time() else None

    def set(self, key, value, *args, **kwargs):
        seconds = kwargs.get('time', 0)
        self.items[key] = (value, time.time() + seconds if seconds else 0)

    def incr(self, key, delta=1, **kwargs):
        value = max(0, int(self.get(key) or 0) + int(delta))
        self.set(key, value, **kwargs)
        return value

    def decr(self, key, delta=1, **kwargs):
        return self.incr(key, -int(delta), **kwargs)

    def delete(self, key, *args, **kwargs):
        self.items.pop(key, None)

    def set_multi(self, mapping, *args, **kwargs):
        for key, value in mapping.items():
            self.set(key, value, **kwargs)

    def get_multi(self, keys, *args, **kwargs):
        return [self.get(key) for key in keys]

def filter_factory(global_conf, **conf):
    cache = Cache()
    def wrap(app):
        def serve(env, start_response):
            env['swift.cache'] = cache
            return app(env, start_response)
        return serve
    return wrap
`;

/** Debian's Python, where its `python3-swift` is. */
const python = '/usr/bin/python3';

/** Whether this machine has Swift with all that it needs. With `CI=true` a missing one throws; otherwise one line says so. */
export function machineHasSwift(): boolean {
  const probe = 'import swift.common.middleware.s3api.s3api, swift.obj.server, swift.container.server, swift.account.server';
  if (spawnSync(python, ['-c', probe], { stdio: 'ignore' }).status === 0) return true;
  if (process.env.CI === 'true') throw new Error('CI must have: python3-swift');
  process.stderr.write('skipped: needs python3-swift\n');
  return false;
}

export class SwiftServer {
  readonly region = 'us-east-1';
  readonly accessKeyId = 'starling:mail';
  readonly secretAccessKey = randomBytes(16).toString('hex');
  #running: { child: ChildProcess; ended: Promise<void> } | undefined;
  #log = '';

  private constructor(
    readonly folder: string,
    private readonly ports: Record<Service, number>,
  ) {}

  /** Builds rings and configurations, starts the servers, and answers when S3 requests are served. */
  static async start(options: { folder?: string } = {}): Promise<SwiftServer> {
    const folder = mkdtempSync(join(options.folder ?? tmpdir(), 'starling-swift-'));
    const [proxy, account, container, object] = await Promise.all([freePort(), freePort(), freePort(), freePort()]);
    const server = new SwiftServer(folder, { proxy, account, container, object });
    try {
      server.#configure();
      await server.resume();
    } catch (error) {
      await server.stop();
      throw error;
    }
    return server;
  }

  /** The S3 service; buckets are the first part of the path. */
  get endpoint(): string {
    return `http://127.0.0.1:${this.ports.proxy}`;
  }

  /** What the servers have said: the last 100 kB. */
  get log(): string {
    return this.#log;
  }

  /** Starts the servers, e.g. after `pause`. */
  async resume(): Promise<void> {
    this.#launch();
    const deadline = performance.now() + startTimeoutMs;
    while (!(await this.#isServing())) {
      if (performance.now() > deadline || this.#running?.child.exitCode !== null)
        throw new Error(`Swift did not start: ${this.#log.slice(-4_000)}`);
      await delay(50);
    }
  }

  /** Ends the servers at once and keeps what they stored. */
  async pause(): Promise<void> {
    const current = this.#running;
    this.#running = undefined;
    current?.child.kill('SIGKILL');
    await current?.ended;
  }

  /** Ends the servers and removes their folder. */
  async stop(): Promise<void> {
    await this.pause();
    rmSync(this.folder, { recursive: true, force: true, maxRetries: 3 });
  }

  #launch(): void {
    const ports = services.map((service) => String(this.ports[service]));
    const child = spawn(python, ['-c', launcher, this.folder, ...ports], {
      cwd: this.folder,
      stdio: ['ignore', 'pipe', 'pipe'],
      env: { ...process.env, http_proxy: '', https_proxy: '', no_proxy: '*' },
    });
    running.add(child);
    const keep = (chunk: Buffer) => {
      this.#log = (this.#log + chunk.toString('utf8')).slice(-100_000);
    };
    child.stdout.on('data', keep);
    child.stderr.on('data', keep);
    // The pipes close when the last of the servers has ended.
    const ended = new Promise<void>((resolve) => {
      const end = () => {
        running.delete(child);
        resolve();
      };
      child.once('close', end);
      child.once('error', end);
    });
    this.#running = { child, ended };
  }

  /** The proxy answers for itself, each other server for its own port. */
  async #isServing(): Promise<boolean> {
    const paths = [...services, 'proxy' as const].map((service) => `http://127.0.0.1:${this.ports[service]}/healthcheck`);
    const states = await Promise.all(paths.map(statusOf));
    return states.every((status) => status === 200);
  }

  #configure(): void {
    const { folder, ports } = this;
    mkdirSync(join(folder, 'devices', 'd1'), { recursive: true });
    mkdirSync(join(folder, 'cache'));
    const common = (service: Service) =>
      [
        '[DEFAULT]',
        'bind_ip = 127.0.0.1',
        `bind_port = ${ports[service]}`,
        'workers = 0',
        `user = ${userInfo().username}`,
        `swift_dir = ${folder}`,
        `devices = ${join(folder, 'devices')}`,
        `recon_cache_path = ${join(folder, 'cache')}`,
        'mount_check = false',
        'disable_fallocate = true',
        'log_level = WARNING',
        `log_address = ${join(folder, 'no-syslog')}`,
        'log_udp_host = 127.0.0.1',
        'log_udp_port = 9',
      ].join('\n');
    for (const service of services) {
      const lines = `[pipeline:main]\npipeline = healthcheck ${service}-server\n[filter:healthcheck]\nuse = egg:swift#healthcheck\n`;
      this.#write(`${service}.conf`, `${common(service)}\n${lines}[app:${service}-server]\nuse = egg:swift#${service}\n`);
    }
    const filters = [
      'catch_errors',
      'gatekeeper',
      'healthcheck',
      'cache',
      'listing_formats',
      'bulk',
      's3api',
      'tempauth',
      'copy',
      'slo',
    ];
    const own: Record<string, string> = {
      s3api: `location = ${this.region}\ns3_acl = false\nmax_upload_part_num = 10000\n`,
      tempauth: `user_${this.accessKeyId.replace(':', '_')} = ${this.secretAccessKey} .admin\n`,
      slo: 'max_manifest_segments = 10000\nrate_limit_under_size = 0\n',
    };
    const use = (name: string) =>
      name === 'cache' ? 'paste.filter_factory = own_cache:filter_factory' : `use = egg:swift#${name}`;
    const sections = filters.map((name) => `[filter:${name}]\n${use(name)}\n${own[name] ?? ''}`).join('\n');
    this.#write('own_cache.py', cacheModule);
    const app = '[app:proxy-server]\nuse = egg:swift#proxy\naccount_autocreate = true\n';
    this.#write(
      'proxy.conf',
      `${common('proxy')}\n[pipeline:main]\npipeline = ${filters.join(' ')} proxy-server\n${app}\n${sections}`,
    );
    this.#write('swift.conf', `[swift-hash]\nswift_hash_path_suffix = ${randomBytes(8).toString('hex')}\n`);
  }

  #write(name: string, text: string): void {
    writeFileSync(join(this.folder, name), text, { mode: 0o600 });
  }
}

function statusOf(url: string): Promise<number> {
  return new Promise((resolve) => {
    const request = get(url, { agent: false, timeout: 5_000 }, (response) => {
      response.resume();
      response.once('end', () => resolve(response.statusCode ?? 0));
    });
    request.once('timeout', () => request.destroy());
    request.once('error', () => resolve(0));
  });
}

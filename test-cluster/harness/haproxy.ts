/** A HAProxy of the test's own: its configuration in a folder that goes with it, everything on loopback, ended by pid. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { freePort } from './ports.js';
import { GivenUp, runCommand, searchPath, startProcess, waitFor } from './processes.js';

export interface HaproxyService {
  name: string;
  /** `http` also ends TLS where `tls` is set. */
  mode: 'tcp' | 'http';
  tls?: boolean;
  targetPort: number;
  /** `send-proxy-v2`, and options of the health check. */
  server: string;
  /** More lines of its section. */
  lines?: readonly string[];
}

export class Haproxy {
  private constructor(
    private readonly folder: string,
    private readonly ports: ReadonlyMap<string, number>,
    private readonly statisticsPort: number,
    private readonly process: ReturnType<typeof startProcess>,
  ) {}

  /** Starts it before servers on 127.0.0.1, which it reaches from `sourceAddress`; waits until it has found all of them alive. */
  static async start(services: readonly HaproxyService[], sourceAddress: string): Promise<Haproxy> {
    const folder = mkdtempSync(join(tmpdir(), 'starling-haproxy-'));
    try {
      const certificate = join(folder, 'certificate.pem');
      await makeCertificate(certificate);
      const ports = new Map<string, number>();
      for (const { name } of services) ports.set(name, await freePort());
      const statisticsPort = await freePort();
      const sections = services.map(
        ({ name, mode, tls, targetPort, server, lines = [] }) =>
          `listen ${name}\n  mode ${mode}\n  bind 127.0.0.1:${ports.get(name)}${tls ? ` ssl crt ${certificate}` : ''}\n` +
          lines.map((line) => `  ${line}\n`).join('') +
          `  source ${sourceAddress}\n  server node 127.0.0.1:${targetPort} ${server}\n`,
      );
      const file = join(folder, 'haproxy.cfg');
      const timeouts = ['connect 30s', 'client 60s', 'server 60s', 'check 30s'].map((each) => `  timeout ${each}\n`).join('');
      const statistics = `listen statistics\n  mode http\n  bind 127.0.0.1:${statisticsPort}\n  stats enable\n  stats uri /\n`;
      writeFileSync(file, `global\n  maxconn 200\ndefaults\n${timeouts}${statistics}${sections.join('')}`);
      const running = startProcess('haproxy', ['-db', '-f', file], { env: { PATH: searchPath } });
      const haproxy = new Haproxy(folder, ports, statisticsPort, running);
      await haproxy.#untilUp().catch(async (error: unknown) => {
        await haproxy.stop();
        throw new Error(`${(error as Error).message}\n${running.output.stderr.slice(-2_000)}`);
      });
      return haproxy;
    } catch (error) {
      rmSync(folder, { recursive: true, force: true });
      throw error;
    }
  }

  port(name: string): number {
    const port = this.ports.get(name);
    if (port === undefined) throw new Error(`HAProxy has no service ${name}`);
    return port;
  }

  /** What its health checks say by service: `UP`, `DOWN`, and how many failed since the start. */
  async servers(): Promise<{ service: string; status: string; failedChecks: number }[]> {
    const response = await fetch(`http://127.0.0.1:${this.statisticsPort}/;csv`, { signal: AbortSignal.timeout(10_000) });
    const [head, ...rows] = (await response.text()).replace(/^# /, '').trim().split('\n');
    const columns = head!.split(',');
    return rows
      .map((row) => row.split(','))
      .map((row) => (column: string) => row[columns.indexOf(column)] ?? '')
      .filter((value) => value('svname') === 'node')
      .map((value) => ({ service: value('pxname'), status: value('status'), failedChecks: Number(value('chkfail')) }));
  }

  async stop(): Promise<void> {
    this.process.child.kill('SIGKILL');
    await this.process.ended.catch(() => undefined);
    rmSync(this.folder, { recursive: true, force: true });
  }

  async #untilUp(): Promise<void> {
    let ended = false;
    void this.process.ended.catch(() => undefined).then(() => (ended = true));
    await waitFor('HAProxy to find its servers', 10_000, async () => {
      if (ended) throw new GivenUp('HAProxy does not run');
      const servers = await this.servers();
      const down = servers.filter(({ status }) => status !== 'UP');
      if (down.length > 0) throw new Error(down.map(({ service, status }) => `${service} is ${status}`).join(', '));
      return servers.length > 0;
    });
  }
}

async function makeCertificate(file: string): Promise<void> {
  const made = await runCommand('openssl', [
    ...['req', '-x509', '-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:P-256', '-nodes', '-days', '2', '-subj', '/CN=localhost'],
    ...['-keyout', '-', '-out', '-'],
  ]);
  if (made.code !== 0) throw new Error(`openssl: ${made.stderr}`);
  writeFileSync(file, made.stdout, { mode: 0o600 });
}

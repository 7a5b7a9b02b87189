/**
 * Watches over an upgrade, node by node: every node is known to every other one all the time, whatever their versions; and once all run the new one, records
 * are written in its formats (TRAPS 23: a format is written only when every member says that it can read it).
 */
import { pack, unpack } from 'fdb-tuple';
import { Packr } from 'msgpackr';
import { waitAtMost } from '../harness/processes.js';
import type { Stage } from './stage.js';

const nodeSubspace = 2;
const knownMs = 15_000;
const packr = new Packr({ useRecords: false });

interface Listed {
  id: string;
  version: string | null;
}

export class UpgradeCheck {
  private constructor(private readonly stage: Stage) {}

  static async begin(stage: Stage): Promise<UpgradeCheck> {
    const check = new UpgradeCheck(stage);
    await check.step();
    return check;
  }

  /** All nodes that run are known to all, readable, and in the store with a format that can be told. */
  async step(): Promise<void> {
    const { stage } = this;
    const ids = stage.nodes.map(({ nodeId }) => nodeId!);
    let problem = '';
    await waitAtMost('nodes to know one another', knownMs, async () => {
      for (const node of stage.nodes) {
        const listed = (await node.ask('node list')) as Listed[];
        const missing = ids.filter((id) => !listed.some((one) => one.id === id && one.version !== null));
        problem = `node ${node.index} can't read ${missing.map((id) => ids.indexOf(id)).join(', ')}`;
        if (missing.length > 0) return false;
      }
      return true;
    }).catch((error: Error) => stage.recorder.violate('upgrade', problem || error.message));
    const rows = await this.#rowFormats();
    const words = ids.map((id, index) => `node ${index} ${rows.get(id) === undefined ? 'no row' : `row format ${rows.get(id)}`}`);
    stage.note(`upgrade: ${words.join(', ')}`);
  }

  /** All run the new version: their rows are of one format, and so is everything that they have written of themselves. */
  async end(): Promise<void> {
    const rows = await this.#rowFormats();
    const formats = new Set(this.stage.nodes.map(({ nodeId }) => rows.get(nodeId!)));
    if (formats.size !== 1 || formats.has(undefined))
      this.stage.recorder.violate('upgrade', `rows of different formats: ${[...formats].join(', ')}`);
  }

  /** The first element of each node row, by node id. */
  async #rowFormats(): Promise<Map<string, number | undefined>> {
    const prefix = Buffer.from(pack([nodeSubspace, 'row']));
    const after = Buffer.concat([prefix, Buffer.of(0xff)]);
    const rows = await this.stage.cluster.server.query('select k, v from starling.kv where k > $1 and k < $2', [prefix, after]);
    return new Map(
      rows.map(({ k, v }) => {
        const value: unknown = packr.unpack(v as Buffer);
        const format = Array.isArray(value) && typeof value[0] === 'number' ? value[0] : undefined;
        return [(unpack(k as Buffer) as [number, string, string])[2], format];
      }),
    );
  }
}

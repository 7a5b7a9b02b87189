/** The disk of one node's own folder fills up. What counts is in the store: the node goes on, or stops in good order; it does not lose anything. */
import { appendFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Scenario } from '../../chaos/stage.js';

const megabytes = 16;
const victim = 1;

/** Until nothing fits any more. */
function fill(file: string): void {
  const chunk = Buffer.alloc(16_384, 1);
  try {
    for (;;) appendFileSync(file, chunk);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOSPC') throw error;
  }
}

export const diskFull: Scenario = {
  name: 'disk-full',
  summary: "fill up the disk with one node's own folder",
  needs: ['small-disk'],
  cluster: () => ({ smallDisk: { index: victim, megabytes } }),
  async run(stage) {
    const index = Math.min(victim, stage.nodes.length - 1);
    const ballast = join(stage.cluster.node(index).data, 'ballast');
    const heal = stage.mark('disk-full', index, async () => {
      rmSync(ballast, { force: true });
      stage.note(`node ${index} has space again`);
    });
    stage.note(`fill up the disk of node ${index}`);
    fill(ballast);
    await stage.pause(stage.strikeMs * 0.5);
    const { isRunning } = stage.cluster.node(index);
    stage.note(isRunning ? `node ${index} goes on` : `node ${index} has stopped`);
    await heal();
    await stage.restart(index);
  },
};

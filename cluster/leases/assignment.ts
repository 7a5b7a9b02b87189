/**
 * Which member each job should lie with: the same answer on every node that knows the same jobs and members, and the jobs spread evenly. A wish only:
 * who holds a job is settled by its row.
 */
import { createHash } from 'node:crypto';

/** Each job, in order, goes to the member with the fewest so far; among those to the one with the highest hash of both (rendezvous hashing). */
export function assignJobs(jobs: readonly string[], members: readonly string[]): Map<string, string> {
  const counts = new Map([...new Set(members)].sort().map((member) => [member, 0]));
  const assigned = new Map<string, string>();
  if (counts.size === 0) return assigned;
  for (const job of [...new Set(jobs)].sort()) {
    const fewest = Math.min(...counts.values());
    let chosen = '';
    let highest = -1;
    for (const [member, count] of counts) {
      const weight = count === fewest ? weightOf(job, member) : -1;
      if (weight > highest) [chosen, highest] = [member, weight];
    }
    counts.set(chosen, fewest + 1);
    assigned.set(job, chosen);
  }
  return assigned;
}

const weightOf = (job: string, member: string): number =>
  createHash('sha256').update(`${job}/${member}`).digest().readUIntBE(0, 6);

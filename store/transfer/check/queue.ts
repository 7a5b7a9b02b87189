/** Checks the queue: every destination is reachable in exactly one way (due, claimed or held; a due one may wait in a line), and what leads to nothing goes. */
import { headKey, linkKey } from '../../blobs/keys.js';
import { keyItems, keysUnder, nodeKeys, subspace } from '../../keyspace.js';
import type { KeyValue, KvTransaction } from '../../kv/contract.js';
import type { Destination } from '../../queue/contract.js';
import { asDue, clearEntries, dueEntry, leadsTo, lineEntry, writeDue } from '../../queue/entries.js';
import { leaveReceipt } from '../../queue/nodes.js';
import * as records from '../../queue/records.js';
import type { Inspection } from './inspection.js';

const rowsPerPage = 200;
const area = 'queue';

export async function checkQueue(inspection: Inspection): Promise<void> {
  await checkMessages(inspection);
  for await (const rows of inspection.pages(keysUnder(subspace.queue, 'destination'), rowsPerPage)) {
    await checkDestinations(inspection, rows);
    inspection.progress(area, rows.length);
  }
  for await (const rows of inspection.pages(keysUnder(subspace.queue, 'due'), rowsPerPage)) {
    await checkDue(inspection, rows);
    inspection.progress(area, rows.length);
  }
  for (const range of [records.allExpressRange(), records.allLinesRange()]) {
    for await (const rows of inspection.pages(range, rowsPerPage)) {
      await checkBeside(inspection, rows);
      inspection.progress(area, rows.length);
    }
  }
  for await (const rows of inspection.pages(records.allClaimsRange(), rowsPerPage)) {
    await checkClaims(inspection, rows);
    inspection.progress(area, rows.length);
  }
}

async function checkMessages(inspection: Inspection): Promise<void> {
  for await (const rows of inspection.pages(records.messageRange(), rowsPerPage)) {
    for (const row of rows) await checkMessage(inspection, row);
    inspection.result.queued += rows.length;
    inspection.progress(area, rows.length);
  }
}

async function checkMessage(inspection: Inspection, { key, value }: KeyValue): Promise<void> {
  const where = keyItems(key)[2] as string;
  const message = inspection.readable(area, where, () => records.decodeMessage(where, value));
  if (!message) return;
  const { begin, end } = records.destinationRange(where);
  const [owned, parts] = await inspection.read((reads) =>
    Promise.all([
      reads.getMany([headKey(message.blobId), linkKey(message.blobId, { kind: 'queue', queueId: where })]),
      reads.getRange(begin, end, { limit: message.partCount + 1 }),
    ]),
  );
  if (!owned[0]) {
    const isSo = async (tx: KvTransaction) => {
      const [head, still] = await tx.getMany([headKey(message.blobId), key]);
      return !head && still !== undefined;
    };
    await inspection.suspect({ area, where, problem: `its content, blob ${message.blobId}, is gone`, isSo });
  } else if (!owned[1]) {
    const owner = { kind: 'queue', queueId: where } as const;
    await inspection.suspect({
      area,
      where,
      problem: 'nothing keeps its content from the purge',
      isSo: async (tx) => {
        const [link, still] = await tx.getMany([linkKey(message.blobId, owner), key]);
        return !link && still !== undefined;
      },
      mend: (tx) => inspection.options.blobs.link(tx, message.blobId, owner),
    });
  }
  const countIn = async (tx: KvTransaction) => (await tx.get(key)) && (await tx.getRange(begin, end)).length;
  if (parts.length === 0) {
    await inspection.suspect({ area, where, problem: 'has no destination', isSo: async (tx) => (await countIn(tx)) === 0 });
  } else if (parts.length > message.partCount) {
    await inspection.suspect({
      area,
      where,
      problem: `has more destinations than the ${message.partCount} that it knows of`,
      isSo: async (tx) => ((await countIn(tx)) ?? 0) > message.partCount,
      mend: async (tx) => tx.set(key, records.encodeMessage({ ...message, partCount: (await countIn(tx))! })),
    });
  }
}

/** The rows that make a destination reachable: one, and the line's where it waits in one; none for a held one. */
function waysTo(destination: Destination): Buffer[] {
  const { state, line, claim } = destination;
  if (state === 'claimed') return [records.claimKey(claim?.nodeId ?? '', destination)];
  if (state !== 'due') return [];
  const due = records.dueKey(destination, destination.dueAtSeconds);
  return line === undefined ? [due] : [due, records.lineKey(line, destination)];
}

async function checkDestinations(inspection: Inspection, rows: readonly KeyValue[]): Promise<void> {
  const all = rows.flatMap(({ key, value }) => {
    const destination = inspection.readable(area, keyItems(key).slice(2).join(' '), () => records.destinationAt(key, value));
    return destination ? [{ key, destination }] : [];
  });
  const [messages, ways] = await inspection.read((reads) =>
    Promise.all([
      reads.getMany(all.map(({ destination }) => records.messageKey(destination.queueId))),
      Promise.all(all.map(({ destination }) => reads.getMany(waysTo(destination)))),
    ]),
  );
  for (const [at, { key, destination }] of all.entries()) {
    const where = `${destination.queueId} ${destination.domain}`;
    if (!messages[at]) {
      await inspection.suspect({
        area,
        where,
        problem: 'is a destination without a message',
        isSo: async (tx) => {
          const [still, message] = await tx.getMany([key, records.messageKey(destination.queueId)]);
          return still !== undefined && message === undefined;
        },
      });
    }
    if (ways[at]!.every((way) => way !== undefined)) continue;
    await inspection.suspect({
      area,
      where,
      problem: `is ${destination.state}, but would never be tried`,
      isSo: async (tx) => {
        const current = await currentOf(tx, key);
        return current !== undefined && (await tx.getMany(waysTo(current))).includes(undefined);
      },
      mend: async (tx) => makeReachable(tx, (await currentOf(tx, key))!),
    });
  }
}

/** What can't be read here (damaged, or of a newer version) has been told of, and is left alone. */
function decoded(ref: records.DestinationRef, value: Buffer): Destination | 'unreadable' {
  try {
    return records.decodeDestination(ref, value);
  } catch {
    return 'unreadable';
  }
}

async function currentOf(tx: KvTransaction, key: Buffer): Promise<Destination | undefined> {
  const value = await tx.get(key);
  return value && records.destinationAt(key, value);
}

/** A claim whose owner may still save gets its row back; all else becomes due. */
async function makeReachable(tx: KvTransaction, destination: Destination): Promise<void> {
  const { claim } = destination;
  if (destination.state === 'claimed' && claim && (await tx.get(nodeKeys.fence(claim.nodeId)))) {
    const epoch = Buffer.allocUnsafe(4);
    epoch.writeUInt32BE(claim.epoch);
    tx.set(records.claimKey(claim.nodeId, destination), epoch);
    return;
  }
  freeClaim(tx, destination);
}

/** Due again, with a higher epoch where it was claimed. */
function freeClaim(tx: KvTransaction, destination: Destination): void {
  const { claim } = destination;
  leaveReceipt(tx, destination.queueId, claim);
  clearEntries(tx, destination);
  writeDue(tx, { ...asDue(destination, destination.dueAtSeconds), epoch: destination.epoch + (claim ? 1 : 0) });
}

async function checkDue(inspection: Inspection, rows: readonly KeyValue[]): Promise<void> {
  const entries = rows.map(dueEntry);
  const values = await inspection.read((reads) => reads.getMany(entries.map(records.destinationKey)));
  for (const [at, entry] of entries.entries()) {
    const leadsThere = (value: Buffer | undefined) => {
      const destination = value && decoded(entry, value);
      return destination === 'unreadable' || (destination?.state === 'due' && destination.dueAtSeconds === entry.dueAtSeconds);
    };
    if (leadsThere(values[at])) continue;
    const { key } = rows[at]!;
    await inspection.suspect({
      area,
      where: `${entry.queueId} ${entry.domain}`,
      problem: values[at] ? 'has a due entry that is not its own' : 'is due, but there is no such destination',
      isSo: async (tx) => {
        const [row, value] = await tx.getMany([key, records.destinationKey(entry)]);
        return row !== undefined && !leadsThere(value);
      },
      mend: (tx) => tx.clear(key),
    });
  }
}

/** Entries beside due entries, of lines and for priorities: harmless when they lead nowhere, and removed by whoever meets them. */
async function checkBeside(inspection: Inspection, rows: readonly KeyValue[]): Promise<void> {
  const entries = rows.map((row) => (keyItems(row.key)[1] === 'line' ? lineEntry(row) : dueEntry(row)));
  const values = await inspection.read((reads) => reads.getMany(entries.map(records.destinationKey)));
  for (const [at, entry] of entries.entries()) {
    const leadsThere = (value: Buffer | undefined) => {
      const destination = value && decoded(entry, value);
      return destination === 'unreadable' || (destination !== undefined && leadsTo(entry, destination));
    };
    if (leadsThere(values[at])) continue;
    const { key } = rows[at]!;
    await inspection.suspect({
      area,
      where: `${entry.queueId} ${entry.domain}`,
      problem: 'has an entry in a line, or for its priority, that leads nowhere',
      isSo: async (tx) => {
        const [row, value] = await tx.getMany([key, records.destinationKey(entry)]);
        return row !== undefined && !leadsThere(value);
      },
      mend: (tx) => tx.clear(key),
    });
  }
}

async function checkClaims(inspection: Inspection, rows: readonly KeyValue[]): Promise<void> {
  const claims = rows.map(({ key }) => ({ key, nodeId: keyItems(key)[2] as string, ref: records.claimedRef(key) }));
  const [values, fences, nodeRows] = await inspection.read((reads) =>
    Promise.all([
      reads.getMany(claims.map(({ ref }) => records.destinationKey(ref))),
      reads.getMany(claims.map(({ nodeId }) => nodeKeys.fence(nodeId))),
      reads.getMany(claims.map(({ nodeId }) => nodeKeys.row(nodeId))),
    ]),
  );
  for (const [at, { key, nodeId, ref }] of claims.entries()) {
    const holds = (value: Buffer | undefined) => {
      const destination = value && decoded(ref, value);
      return destination === 'unreadable' || (destination?.state === 'claimed' && destination.claim?.nodeId === nodeId);
    };
    const where = `${ref.queueId} ${ref.domain}`;
    if (!holds(values[at])) {
      await inspection.suspect({
        area,
        where,
        problem: values[at]
          ? `has a claim of ${nodeId} that it does not know of`
          : 'is claimed, but there is no such destination',
        isSo: async (tx) => {
          const [row, value] = await tx.getMany([key, records.destinationKey(ref)]);
          return row !== undefined && !holds(value);
        },
        mend: (tx) => tx.clear(key),
      });
    } else if (!fences[at] && !nodeRows[at] && decoded(ref, values[at]!) !== 'unreadable') {
      // With a row and no fence somebody is taking the claims over at this moment.
      await inspection.suspect({
        area,
        where,
        problem: `is claimed by ${nodeId}, which no node is`,
        isSo: async (tx) => {
          const [row, value, fence, node] = await tx.getMany([
            key,
            records.destinationKey(ref),
            nodeKeys.fence(nodeId),
            nodeKeys.row(nodeId),
          ]);
          return row !== undefined && holds(value) && !fence && !node;
        },
        mend: async (tx) => {
          const destination = records.decodeDestination(ref, (await tx.get(records.destinationKey(ref)))!);
          tx.clear(key);
          freeClaim(tx, destination);
        },
      });
    }
  }
}

/** How domains that are down and operators' pauses are kept: msgpack arrays that begin with a format version. */
import { Packr } from 'msgpackr';
import type { DestinationHealth, QueuePause } from './destinations-contract.js';

const format = 1;
const packr = new Packr({ useRecords: false });

/** As it stands in the store; `probe`: what the node that makes the probe now calls itself, '' between probes. */
export interface HealthRecord extends DestinationHealth {
  probe: string;
}

export function encodeHealth({ failures, lastReply: r, downSinceMs, nextProbeAtSeconds, probe }: HealthRecord): Buffer {
  return packr.pack([format, failures, [r.code, r.enhanced, r.text, r.host], downSinceMs, nextProbeAtSeconds, probe]);
}

/** Undefined for what this release can't read: the domain counts as well then, and is found out about anew. */
export function decodeHealth(domain: string, value: Buffer): HealthRecord | undefined {
  const f = fieldsOf(value);
  if (!f) return undefined;
  const [code, enhanced, text, host] = f[2] as [number, string, string, string?];
  return {
    domain,
    failures: f[1] as number,
    lastReply: { code, enhanced, text, host },
    downSinceMs: f[3] as number,
    nextProbeAtSeconds: f[4] as number,
    probe: f[5] as string,
  };
}

export const encodePause = ({ by, note, sinceMs }: QueuePause): Buffer => packr.pack([format, by, note, sinceMs]);

/** A pause that can't be read still is one. */
export function decodePause(what: string, value: Buffer): QueuePause {
  const f = fieldsOf(value);
  return f
    ? { what, by: f[1] as string, note: f[2] as string, sinceMs: f[3] as number }
    : { what, by: '', note: 'written by a newer release', sinceMs: 0 };
}

function fieldsOf(value: Buffer): unknown[] | undefined {
  try {
    const fields: unknown = packr.unpack(value);
    return Array.isArray(fields) && fields[0] === format ? fields : undefined;
  } catch {
    return undefined;
  }
}

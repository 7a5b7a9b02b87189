/** The statements that read. Answers are packed into one value by the server: cheaper to send and to take apart than rows. */
import { maxPlainKeyBytes } from './functions.js';
import type { Statement } from './link.js';

/** One page of a range holds no more. Its rows' pointers are looked at by the server, their values only up to `maxPageBytes`. */
export const maxPageRows = 4_096;
const maxPageBytes = 1024 * 1024;

export interface ReadStatements {
  /** Gives: newest version of this snapshot; values of keys. */
  first(keys: Buffer): Statement;
  values(keys: Buffer): Statement;
  longValues(keys: Buffer): Statement;
  /** Gives: pairs; rows looked at. Fewer pairs than rows: the page was full. */
  page(begin: Buffer, end: Buffer, rows: number, reverse: boolean): Statement;
}

export const beginSnapshot: Statement = { text: 'begin isolation level repeatable read read only' };
export const endSnapshot: Statement = { text: 'commit' };
/** Ends the last one and begins another of the same kind. */
export const nextSnapshot: Statement = { text: 'commit and chain' };

export function readStatements(schema: string): ReadStatements {
  const s = `"${schema}"`;
  const packed = (value: string) => `string_agg(int4send(p.i::int) || int4send(length(${value})) || ${value}, ''::bytea)`;
  const valuesText = `select ${packed('kv.v')} from unnest($1::bytea[]) with ordinality p(k, i) join ${s}.kv on kv.k = p.k`;
  const firstText = `select (select max(c.version) from ${s}.commits c), (${valuesText})`;
  const longText = `select ${packed('l.v')} from unnest($1::bytea[]) with ordinality p(k, i)
    join ${s}.kv_long l on l.p = substr(p.k, 1, ${maxPlainKeyBytes}) and l.k = p.k`;
  const pageText = (direction: string) => `
    select string_agg(int4send(length(y.k)) || int4send(length(y.v)) || y.k || y.v, ''::bytea)
        filter (where coalesce(y.before, 0) < ${maxPageBytes}), count(*)
    from (
      select x.k, x.v, sum(length(x.k) + length(x.v)) over (order by x.k ${direction} rows between unbounded preceding and 1 preceding) as before
      from (
        select u.k, u.v from (
          select k, v from ${s}.kv where k >= $1::bytea and k < $2::bytea
          union all
          select k, v from ${s}.kv_long where p >= substr($1::bytea, 1, ${maxPlainKeyBytes}) and p <= $2::bytea
            and k >= $1::bytea and k < $2::bytea
        ) u order by u.k ${direction} limit $3::int
      ) x
    ) y`;
  const forward = pageText('asc');
  const backward = pageText('desc');
  return {
    first: (keys) => ({ name: 'first', text: firstText, values: [keys] }),
    values: (keys) => ({ name: 'values', text: valuesText, values: [keys] }),
    longValues: (keys) => ({ name: 'long', text: longText, values: [keys] }),
    page: (begin, end, rows, reverse) => ({
      name: reverse ? 'backward' : 'forward',
      text: reverse ? backward : forward,
      values: [begin, end, String(rows)],
    }),
  };
}

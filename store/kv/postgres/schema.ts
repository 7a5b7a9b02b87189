/**
 * The tables, made and migrated by the node itself under an advisory lock. Needs the right to create a schema in the database (or, in a
 * schema that the operator has made, to create in it); no superuser, no extension.
 */
import { KvError } from '../contract.js';
import { errorCode, unavailable } from './errors.js';
import { functionsSql, lockClass, lockNumber } from './functions.js';
import type { Link } from './link.js';

/** Raised with every change of tables or functions; functions carry it in their names, so nodes of both sides of an upgrade can work. */
const format = 1;

/** Makes schema, tables and functions unless they are there. Throws `unavailable` with a sentence for the operator. */
export async function prepareSchema(link: Link, schema: string): Promise<void> {
  const run = async (text: string) => (await link.run({ text })) as unknown;
  try {
    if ((await currentFormat(link, schema)) === format) return;
    await run('begin');
    try {
      await run(`select pg_advisory_xact_lock(${lockClass + 1}, ${lockNumber(schema)})`);
      const found = await currentFormat(link, schema);
      if (found !== undefined && found > format) throw newer(schema, found);
      if (found === undefined) {
        const [exists] = await link.run({ text: `select 1 from pg_namespace where nspname = '${schema}'` });
        if (!exists) await run(`create schema "${schema}"`);
        await run(tablesSql(`"${schema}"`) + functionsSql(schema));
      }
      await run('commit');
    } catch (error) {
      await run('rollback').catch(() => {});
      throw error;
    }
  } catch (error) {
    throw explain(error, schema, link);
  }
}

async function currentFormat(link: Link, schema: string): Promise<number | undefined> {
  const [exists] = await link.run({
    text: `select 1 from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = '${schema}' and c.relname = 'format'`,
  });
  if (!exists) return undefined;
  const [row] = await link.run({ text: `select number from "${schema}".format` });
  const number = row && Number(row[0]);
  if (number !== undefined && number > format) throw newer(schema, number);
  return number;
}

function newer(schema: string, found: number): KvError {
  const message = `the schema "${schema}" has format ${found}, made by a newer version; this one knows format ${format}`;
  return new KvError('unavailable', message, 'io');
}

function explain(error: unknown, schema: string, link: Link): KvError {
  if (errorCode(error) !== '42501') return unavailable(error, 'the tables of the store can not be made');
  const message = `the database role may not make the store's tables at ${link.endpoint.name}; let it: GRANT CREATE ON DATABASE, or create the schema "${schema}" with this role as its owner (${(error as Error).message})`;
  return new KvError('unavailable', message, 'io', { cause: error });
}

function tablesSql(s: string): string {
  const recent = (n: number) => `
create unlogged table ${s}.recent_${n} (k bytea not null, version bigint not null) with (autovacuum_enabled = off, toast.autovacuum_enabled = off);
create index recent_${n}_key on ${s}.recent_${n} (k, version);
create unlogged table ${s}.recent_ranges_${n} (version bigint not null, b bytea not null, e bytea not null) with (autovacuum_enabled = off, toast.autovacuum_enabled = off);
create index recent_ranges_${n}_version on ${s}.recent_ranges_${n} (version);`;
  // Rows come and go (queues): vacuum early. Values are compressed already where that pays.
  const vacuum =
    'autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000, autovacuum_vacuum_insert_scale_factor = 0.1, ' +
    'autovacuum_analyze_scale_factor = 0.2, toast.autovacuum_vacuum_scale_factor = 0.02';
  return `
create table ${s}.format (number int not null);
insert into ${s}.format values (${format});
create table ${s}.kv (k bytea not null, v bytea not null, primary key (k)) with (fillfactor = 90, ${vacuum});
alter table ${s}.kv alter column k set storage plain, alter column v set storage external;
-- Keys too long for an index entry: p is how they begin, h the digest of all of them.
create table ${s}.kv_long (p bytea not null, h bytea not null, k bytea not null, v bytea not null, primary key (p, h));
alter table ${s}.kv_long alter column p set storage plain, alter column v set storage external;
-- One row for each batch: never updated, so that a long snapshot (a backup) leaves no trail of dead rows that all commits look at.
create table ${s}.commits (version bigint primary key, previous bigint not null, batch uuid unique, refused int[], too_old int[],
  abandoned boolean not null default false, at timestamptz not null default clock_timestamp())
  with (autovacuum_vacuum_scale_factor = 0.02, autovacuum_vacuum_threshold = 1000);
create sequence ${s}.versions as bigint;
insert into ${s}.commits(version, previous) values (nextval('${s}.versions'), 0);
create unlogged table ${s}.conflict_window (era bigint not null, generation int not null, floor bigint not null,
  began_version bigint not null, began_at timestamptz not null);
${recent(0)}
${recent(1)}
`;
}

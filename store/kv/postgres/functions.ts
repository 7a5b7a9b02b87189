/**
 * The resolver: functions that run inside the server, one call for each batch of commits. They take one lock, so commits of all nodes
 * stand in one order, and because PostgreSQL lets go of it only after a commit is durable and visible, versions ascend in that order.
 *
 * What must be true: every commit above `conflict_window.floor` has its keys and ranges in the recent tables. Those are UNLOGGED: a
 * crash or a promotion empties them together with `conflict_window`, and `enter` then begins a new window at the newest commit.
 */

/** Keys up to this stand in `kv`; a B-tree entry can't be much longer. Longer ones stand in `kv_long`. */
export const maxPlainKeyBytes = 2_000;
/** Seconds that one generation of recent writes is filled; transactions are refused when they are older than one to two of them. */
const generationSeconds = 10;
/** How long the outcome of a batch is kept for nodes that have not heard it. */
const keptOutcomes = '10 minutes';

/** Bits of the commit call's `flags`: what need not be done at all is not even looked for. */
export const commitFlags = {
  sets: 1,
  clears: 2,
  /** Several transactions set one key: the last that passes wins. */
  repeatedSets: 4,
  ranges: 8,
  additions: 16,
  /** `max`, `min`, and mixed operations, one after another. */
  operations: 32,
  stamped: 64,
  /** Some key may be longer than `maxPlainKeyBytes`. */
  longKeys: 128,
} as const;

/** What a row of the writes is: `touched` is a write conflict only. */
export const writeKinds = { touched: 0, set: 1, clear: 2 } as const;
export const operationKinds = { addition: 0, add: 1, max: 2, min: 3 } as const;

/** Name of the session's channel; carries `version:previous:payload`. */
export function channelName(schema: string): string {
  return `${schema}_commits`;
}

/** SQL of all functions of format 1, for a schema whose name needs no quotes inside. */
export function functionsSql(schema: string): string {
  const s = `"${schema}"`;
  return [lockFunction(s, schema), numberFunctions(s), rotateFunction(s), enterFunction(s), commitFunction(s, schema)].join('\n');
}

function lockFunction(s: string, schema: string): string {
  return `
create function ${s}.lock_1() returns void language sql as $fn$
  select pg_advisory_xact_lock(${lockClass}, ${lockNumber(schema)})
$fn$;`;
}

/** Advisory locks of one database are shared by all schemas. */
export const lockClass = 0x53544152;
export function lockNumber(schema: string): number {
  let hash = 7;
  for (const character of schema) hash = (Math.imul(hash, 31) + character.charCodeAt(0)) | 0;
  return hash;
}

function numberFunctions(s: string): string {
  return `
-- A value as a little-endian number, read as padded with zeros or cut to 8 bytes; as signed 64 bits.
create function ${s}.number_1(v bytea) returns bigint language plpgsql immutable strict as $fn$
declare b bytea := substr(v || '\\x0000000000000000'::bytea, 1, 8);
begin
  return (get_byte(b,0)::bigint << 0) | (get_byte(b,1)::bigint << 8) | (get_byte(b,2)::bigint << 16) | (get_byte(b,3)::bigint << 24)
    | (get_byte(b,4)::bigint << 32) | (get_byte(b,5)::bigint << 40) | (get_byte(b,6)::bigint << 48) | (get_byte(b,7)::bigint << 56);
end $fn$;
-- The 8 little-endian bytes of a number modulo 2^64.
create function ${s}.bytes_1(n numeric) returns bytea language plpgsql immutable strict as $fn$
declare m numeric := mod(n, 18446744073709551616); x bigint; b bytea := '\\x0000000000000000';
begin
  if m < 0 then m := m + 18446744073709551616; end if;
  if m >= 9223372036854775808 then m := m - 18446744073709551616; end if;
  x := m::bigint;
  for i in 0..7 loop b := set_byte(b, i, ((x >> (8 * i)) & 255)::int); end loop;
  return b;
end $fn$;
-- One atomic operation (${JSON.stringify(operationKinds).replaceAll('"', '')}) on what is there, null when nothing is.
create function ${s}.operate_1(kind int, operand bigint, base bytea) returns bytea language plpgsql immutable as $fn$
declare before bigint := ${s}.number_1(base); flip constant bigint := -9223372036854775808;
begin
  if kind <= ${operationKinds.add} then return ${s}.bytes_1(coalesce(before, 0)::numeric + operand::numeric); end if;
  if before is null then return ${s}.bytes_1(operand::numeric); end if;
  -- Unsigned comparison: with the highest bit turned over, the signed one gives it.
  if ((before # flip) > (operand # flip)) = (kind = ${operationKinds.max}) then return ${s}.bytes_1(before::numeric); end if;
  return ${s}.bytes_1(operand::numeric);
end $fn$;`;
}

function rotateFunction(s: string): string {
  return `
-- Empties the older generation of recent writes and fills that from now on. Called under the lock, after version p_version was written.
create function ${s}.rotate_1(p_version bigint) returns void language plpgsql as $fn$
declare v_other int; v_old bigint; v_at timestamptz;
begin
  select 1 - w.generation into v_other from ${s}.conflict_window w;
  begin
    -- Whoever reads these tables (a dump) must not stop the commits of all nodes: then the window grows, and is emptied later.
    if v_other = 0 then lock table ${s}.recent_0, ${s}.recent_ranges_0 in access exclusive mode nowait;
    else lock table ${s}.recent_1, ${s}.recent_ranges_1 in access exclusive mode nowait; end if;
  exception when lock_not_available then
    update ${s}.conflict_window set began_at = clock_timestamp();
    return;
  end;
  if v_other = 0 then
    if exists (select from ${s}.recent_0) then truncate ${s}.recent_0; end if;
    if exists (select from ${s}.recent_ranges_0) then truncate ${s}.recent_ranges_0; end if;
  else
    if exists (select from ${s}.recent_1) then truncate ${s}.recent_1; end if;
    if exists (select from ${s}.recent_ranges_1) then truncate ${s}.recent_ranges_1; end if;
  end if;
  update ${s}.conflict_window
    set generation = v_other, floor = began_version, began_version = p_version, began_at = clock_timestamp();
  for i in 1..20 loop
    select c.version, c.at into v_old, v_at from ${s}.commits c order by c.version limit 1 offset 999;
    exit when not found or v_at > clock_timestamp() - interval '${keptOutcomes}';
    delete from ${s}.commits c where c.version <= v_old and c.version < p_version;
  end loop;
end $fn$;`;
}

function enterFunction(s: string): string {
  return `
-- First call of every committing connection. p_era: the window that the node knew, if any; p_seen: the highest version that it has seen;
-- p_abandoned: batches that it has given up, which must not be committed by whatever still runs them.
-- Gives: newest version before and after, era. When the window is another one or the node has seen more than there is, the version
-- is raised above everything seen, so that a transaction which read before is known by its version.
create function ${s}.enter_1(p_era bigint, p_seen bigint, p_abandoned uuid[], out o_before bigint, out o_head bigint, out o_era bigint)
language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare v_id uuid; v_raise boolean;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise exception 'commits must run at the isolation level READ COMMITTED';
  end if;
  perform ${s}.lock_1();
  select max(c.version) into o_before from ${s}.commits c;
  select w.era into o_era from ${s}.conflict_window w;
  o_head := o_before;
  v_raise := p_seen > o_before or (p_era is not null and p_era is distinct from o_era);
  foreach v_id in array p_abandoned loop
    if not exists (select from ${s}.commits c where c.batch = v_id) then
      o_head := greatest(o_head, p_seen) + 1;
      insert into ${s}.commits(version, previous, batch, abandoned) values (o_head, o_before, v_id, true);
    end if;
  end loop;
  if v_raise and o_head <= greatest(o_before, p_seen) then
    o_head := greatest(o_before, p_seen) + 1;
    insert into ${s}.commits(version, previous) values (o_head, o_before);
  end if;
  -- Commits were lost (failover, an older backup): what this window knows is not what others have read.
  if o_era is null or p_seen > o_before then
    delete from ${s}.recent_0; delete from ${s}.recent_1; delete from ${s}.recent_ranges_0; delete from ${s}.recent_ranges_1;
    delete from ${s}.conflict_window;
    o_era := (random() * 9007199254740991)::bigint;
    insert into ${s}.conflict_window(era, generation, floor, began_version, began_at)
      values (o_era, 0, o_head, o_head, clock_timestamp());
  end if;
  if (select v.last_value from ${s}.versions v) < o_head then perform setval('${s}.versions', o_head); end if;
end $fn$;`;
}

/** Every row of `p` (aliases `t`: number of the transaction, `k`: key) that a recent commit has changed above the version read. */
function changedKeys(s: string, generation: number): string {
  return `exists (select from ${s}.recent_${generation} r where r.k = p.k and r.version > p_read[p.t])`;
}

function changedInRange(s: string, generation: number): string {
  return `exists (select from ${s}.recent_${generation} r where r.k >= p.b and r.k < p.e and r.version > p_read[p.t])`;
}

function rangeOverKey(s: string, generation: number): string {
  return `exists (select from ${s}.recent_ranges_${generation} r where r.version > p_read[p.t] and r.b <= p.k and p.k < r.e)`;
}

function rangeOverRange(s: string, generation: number): string {
  return `exists (select from ${s}.recent_ranges_${generation} r where r.version > p_read[p.t] and r.b < p.e and p.b < r.e)`;
}

function commitFunction(s: string, schema: string): string {
  const has = (flag: keyof typeof commitFlags) => `p_flags & ${commitFlags[flag]} <> 0`;
  const passes = (transaction: string) => `(v_all or not ${transaction} = any(v_refused))`;
  const recent = (columns: string) => `
    if v_generation = 0 then insert into ${s}.recent_0(k, version) ${columns};
    else insert into ${s}.recent_1(k, version) ${columns}; end if;`;
  const short = (key: string) => `case when ${has('longKeys')} then substr(${key}, 1, ${maxPlainKeyBytes}) else ${key} end`;
  return `
-- Commits a batch. Transactions are numbered from 1; p_read[t] is the version that t has read (the highest number: none), p_lowest the
-- least of them. p_era: what enter told; in another one nothing is known of what was read (no_data_found). p_known: only when the batch is sent again, the newest version that the node knew when it sent it first.
-- Gives: version|previous version|refused transactions|those of them that were too old. No version: nothing was committed.
create function ${s}.commit_1(
  p_era bigint, p_batch uuid, p_known bigint, p_flags int, p_lowest bigint, p_read bigint[],
  p_point_t int[], p_point bytea[], p_range_t int[], p_range_begin bytea[], p_range_end bytea[],
  p_write_t int[], p_write bytea[], p_value bytea[], p_kind smallint[],
  p_wide_t int[], p_wide_begin bytea[], p_wide_end bytea[], p_wide_clears boolean[],
  p_operation_t int[], p_operation bytea[], p_operation_kind smallint[], p_operand bigint[],
  p_stamped_t int[], p_prefix bytea[], p_suffix bytea[], p_stamped_value bytea[],
  p_payload text
) returns text language plpgsql set search_path = pg_catalog, pg_temp as $fn$
declare
  v_head bigint; v_next bigint; v_generation int; v_floor bigint; v_began timestamptz;
  v_refused int[] := '{}'; v_old int[] := '{}'; v_more int[]; v_all boolean := true; v_done record; v_row record; v_value bytea;
begin
  perform pg_advisory_xact_lock(${lockClass}, ${lockNumber(schema)});
  if p_known is not null then
    select c.version, c.previous, c.refused, c.too_old, c.abandoned into v_done from ${s}.commits c where c.batch = p_batch;
    if found then
      if v_done.abandoned then raise exception 'this batch was given up' using errcode = 'ST001'; end if;
      return v_done.version || '|' || v_done.previous || '|' || array_to_string(coalesce(v_done.refused, '{}'), ',') || '|'
        || array_to_string(coalesce(v_done.too_old, '{}'), ',');
    end if;
    if p_known < (select min(c.version) from ${s}.commits c) - 1 then
      raise exception 'nobody knows any more whether this batch was committed' using errcode = 'ST001';
    end if;
  end if;
  select (select max(c.version) from ${s}.commits c), w.generation, w.floor, w.began_at
    into strict v_head, v_generation, v_floor, v_began from ${s}.conflict_window w where w.era = p_era;

  if p_lowest < v_head then
    if p_lowest < v_floor then
      select coalesce(array_agg(u.t), '{}') into v_old from unnest(p_read) with ordinality u(v, t) where u.v < v_floor;
    end if;
    v_refused := v_old;
    if cardinality(p_point_t) > 0 then
      select array_agg(p.t) into v_more from unnest(p_point_t, p_point) p(t, k)
        where ${changedKeys(s, 0)} or ${changedKeys(s, 1)};
      if v_more is not null then v_refused := v_refused || v_more; end if;
    end if;
    if cardinality(p_range_t) > 0 then
      select array_agg(p.t) into v_more from unnest(p_range_t, p_range_begin, p_range_end) p(t, b, e)
        where ${changedInRange(s, 0)} or ${changedInRange(s, 1)};
      if v_more is not null then v_refused := v_refused || v_more; end if;
    end if;
    if exists (select from ${s}.recent_ranges_0 r where r.version > p_lowest)
      or exists (select from ${s}.recent_ranges_1 r where r.version > p_lowest) then
      select array_agg(p.t) into v_more from unnest(p_point_t, p_point) p(t, k)
        where ${rangeOverKey(s, 0)} or ${rangeOverKey(s, 1)};
      if v_more is not null then v_refused := v_refused || v_more; end if;
      select array_agg(p.t) into v_more from unnest(p_range_t, p_range_begin, p_range_end) p(t, b, e)
        where ${rangeOverRange(s, 0)} or ${rangeOverRange(s, 1)};
      if v_more is not null then v_refused := v_refused || v_more; end if;
    end if;
    if cardinality(v_refused) > 0 then
      v_all := false;
      v_refused := array(select distinct u.t from unnest(v_refused) u(t) order by 1);
      if cardinality(v_refused) = cardinality(p_read) then
        return '||' || array_to_string(v_refused, ',') || '|' || array_to_string(v_old, ',');
      end if;
    end if;
  end if;

  v_next := nextval('${s}.versions');
  if v_next <= v_head then v_next := setval('${s}.versions', v_head + 1); end if;

  if ${has('ranges')} then
    delete from ${s}.kv using unnest(p_wide_t, p_wide_begin, p_wide_end, p_wide_clears) u(t, b, e, c)
      where kv.k >= u.b and kv.k < u.e and u.c and ${passes('u.t')};
    delete from ${s}.kv_long l using unnest(p_wide_t, p_wide_begin, p_wide_end, p_wide_clears) u(t, b, e, c)
      where l.p >= substr(u.b, 1, ${maxPlainKeyBytes}) and l.p <= u.e and l.k >= u.b and l.k < u.e and u.c and ${passes('u.t')};
    if v_generation = 0 then
      insert into ${s}.recent_ranges_0(version, b, e) select v_next, substr(u.b, 1, ${maxPlainKeyBytes}), u.e
        from unnest(p_wide_t, p_wide_begin, p_wide_end) u(t, b, e) where ${passes('u.t')};
    else
      insert into ${s}.recent_ranges_1(version, b, e) select v_next, substr(u.b, 1, ${maxPlainKeyBytes}), u.e
        from unnest(p_wide_t, p_wide_begin, p_wide_end) u(t, b, e) where ${passes('u.t')};
    end if;
  end if;

  if cardinality(p_write_t) > 0 then
    ${recent(`select ${short('w.k')}, v_next from unnest(p_write_t, p_write) w(t, k) where ${passes('w.t')}`)}
    if ${has('clears')} then
      delete from ${s}.kv using unnest(p_write_t, p_write, p_kind) w(t, k, c)
        where kv.k = w.k and w.c = ${writeKinds.clear} and ${passes('w.t')};
      if ${has('longKeys')} then
        delete from ${s}.kv_long l using unnest(p_write_t, p_write, p_kind) w(t, k, c)
          where l.p = substr(w.k, 1, ${maxPlainKeyBytes}) and l.k = w.k and w.c = ${writeKinds.clear} and ${passes('w.t')};
      end if;
    end if;
    if ${has('sets')} then
      if ${has('longKeys')} or ${has('repeatedSets')} then
        insert into ${s}.kv(k, v) select distinct on (w.k) w.k, w.v
          from unnest(p_write_t, p_write, p_value, p_kind) with ordinality w(t, k, v, c, o)
          where w.c = ${writeKinds.set} and length(w.k) <= ${maxPlainKeyBytes} and ${passes('w.t')} order by w.k, w.o desc
          on conflict (k) do update set v = excluded.v;
        insert into ${s}.kv_long(p, h, k, v)
          select distinct on (w.k) substr(w.k, 1, ${maxPlainKeyBytes}), sha256(w.k), w.k, w.v
          from unnest(p_write_t, p_write, p_value, p_kind) with ordinality w(t, k, v, c, o)
          where w.c = ${writeKinds.set} and length(w.k) > ${maxPlainKeyBytes} and ${passes('w.t')} order by w.k, w.o desc
          on conflict (p, h) do update set v = excluded.v;
      else
        insert into ${s}.kv(k, v) select w.k, w.v from unnest(p_write_t, p_write, p_value, p_kind) w(t, k, v, c)
          where w.c = ${writeKinds.set} and ${passes('w.t')}
          on conflict (k) do update set v = excluded.v;
      end if;
    end if;
  end if;

  if ${has('additions')} then
    ${recent(`select ${short('a.k')}, v_next from unnest(p_operation_t, p_operation, p_operation_kind) a(t, k, c)
      where a.c = ${operationKinds.addition} and ${passes('a.t')} group by a.k`)}
    insert into ${s}.kv(k, v) select a.k, ${s}.bytes_1(sum(a.n))
      from unnest(p_operation_t, p_operation, p_operation_kind, p_operand) a(t, k, c, n)
      where a.c = ${operationKinds.addition} and ${passes('a.t')} group by a.k
      on conflict (k) do update
        set v = ${s}.bytes_1(${s}.number_1(kv.v)::numeric + ${s}.number_1(excluded.v)::numeric);
  end if;
  if ${has('operations')} then
    for v_row in select a.k, a.c, a.n from unnest(p_operation_t, p_operation, p_operation_kind, p_operand) with ordinality a(t, k, c, n, o)
      where a.c > ${operationKinds.addition} and ${passes('a.t')} order by a.o
    loop
      ${recent(`values (substr(v_row.k, 1, ${maxPlainKeyBytes}), v_next)`)}
      if length(v_row.k) <= ${maxPlainKeyBytes} then
        v_value := ${s}.operate_1(v_row.c, v_row.n, (select kv.v from ${s}.kv where kv.k = v_row.k));
        insert into ${s}.kv(k, v) values (v_row.k, v_value) on conflict (k) do update set v = excluded.v;
      else
        v_value := ${s}.operate_1(v_row.c, v_row.n,
          (select l.v from ${s}.kv_long l where l.p = substr(v_row.k, 1, ${maxPlainKeyBytes}) and l.k = v_row.k));
        insert into ${s}.kv_long(p, h, k, v)
          values (substr(v_row.k, 1, ${maxPlainKeyBytes}), sha256(v_row.k), v_row.k, v_value)
          on conflict (p, h) do update set v = excluded.v;
      end if;
    end loop;
  end if;

  if ${has('stamped')} then
    for v_row in select distinct on (1) x.p || int8send(v_next) || int2send((x.t - 1)::smallint) || x.s as k, x.v
      from unnest(p_stamped_t, p_prefix, p_suffix, p_stamped_value) with ordinality x(t, p, s, v, o)
      where ${passes('x.t')} order by 1, x.o desc
    loop
      ${recent(`values (substr(v_row.k, 1, ${maxPlainKeyBytes}), v_next)`)}
      if length(v_row.k) <= ${maxPlainKeyBytes} then
        insert into ${s}.kv(k, v) values (v_row.k, v_row.v) on conflict (k) do update set v = excluded.v;
      else
        insert into ${s}.kv_long(p, h, k, v)
          values (substr(v_row.k, 1, ${maxPlainKeyBytes}), sha256(v_row.k), v_row.k, v_row.v)
          on conflict (p, h) do update set v = excluded.v;
      end if;
    end loop;
  end if;

  if v_all then
    insert into ${s}.commits(version, previous, batch) values (v_next, v_head, p_batch);
  else
    insert into ${s}.commits(version, previous, batch, refused, too_old) values (v_next, v_head, p_batch, v_refused, v_old);
  end if;
  perform pg_notify('${channelName(schema)}', v_next || ':' || v_head || ':' || p_payload);
  if clock_timestamp() not between v_began - interval '1 second' and v_began + interval '${generationSeconds} seconds' then
    perform ${s}.rotate_1(v_next);
  end if;
  if v_all then return v_next || '|' || v_head || '||'; end if;
  return v_next || '|' || v_head || '|' || array_to_string(v_refused, ',') || '|' || array_to_string(v_old, ',');
end $fn$;`;
}

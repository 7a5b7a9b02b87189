/** RFC 5231 4: how a value stands to a key. */
const relations: Readonly<Record<string, (order: number) => boolean>> = {
  gt: (order) => order > 0,
  ge: (order) => order >= 0,
  lt: (order) => order < 0,
  le: (order) => order <= 0,
  eq: (order) => order === 0,
  ne: (order) => order !== 0,
};

/** Whether an order (below, at, above 0) is what was asked for. */
export type Relation = (order: number) => boolean;

/** Undefined: there is none of that name. */
export function relationNamed(name: string): Relation | undefined {
  const key = name.toLowerCase();
  return Object.hasOwn(relations, key) ? relations[key] : undefined;
}

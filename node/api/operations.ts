/**
 * What operators can do, one table for the command line and the control socket: name, usage, what it does. Results are plain JSON values.
 */
import { DirectoryError, type Principal, type PrincipalKind } from '../../store/directory/contract.js';
import { MailError } from '../../store/mail/contract.js';
import { banOperations } from './ban-operations.js';
import { explainOperations } from './explain-operation.js';
import { listFlag as list, textFlag as text } from './flags.js';
import { lookupOperations } from './lookup-operations.js';
import { type NodeFace, type Operation, type OperationArguments, type OperationContext, OperationRefused } from './operation.js';
import { queueOperations } from './queue-operations.js';
import { searchOperations } from './search-operations.js';
import { settingsOperations } from './settings-operations.js';
import { storeOperations } from './store-operations.js';

export { type NodeFace, type Operation, type OperationArguments, type OperationContext, OperationRefused };

function byteCount(value: string | undefined): number | undefined {
  if (value === undefined) return undefined;
  const match = /^(\d{1,12})([kMGT]?)$/.exec(value);
  if (!match) throw new OperationRefused(`a quota is a number of bytes, or one with k, M, G or T: '${value}'`);
  return Number(match[1]) * 1024 ** ['', 'k', 'M', 'G', 'T'].indexOf(match[2]!);
}

/** Whether the account keeps what CRAM-MD5 and DIGEST-MD5 need; undefined: as it is. */
function legacyLogins(value: OperationArguments['flags'][string]): boolean | undefined {
  if (value === undefined) return undefined;
  if (value === 'on' || value === 'off') return value === 'on';
  throw new OperationRefused("--legacy-logins is 'on' or 'off'");
}

function requireNode(context: OperationContext): NodeFace {
  if (!context.node) throw new OperationRefused('no node is running');
  return context.node;
}

/** Directory and mailbox complaints are answers, not failures. */
function refusals(run: Operation['run']): Operation['run'] {
  return async (context, args) => {
    try {
      return await run(context, args);
    } catch (error) {
      if (error instanceof DirectoryError || error instanceof MailError)
        throw new OperationRefused(error.message, { cause: error });
      throw error;
    }
  };
}

function principalRow(principal: Principal): Record<string, unknown> {
  const { id, address, displayName, aliases, members, isEnabled, isAdmin, quotaLimitBytes, createdAtMs } = principal;
  return {
    address,
    id,
    displayName,
    aliases,
    ...(principal.kind === 'account' ? { isAdmin } : { members }),
    isEnabled,
    ...(principal.keepsLegacySecret ? { keepsLegacySecret: true } : {}),
    quotaLimitBytes: quotaLimitBytes ?? null,
    createdAt: new Date(createdAtMs).toISOString(),
  };
}

function principalOperations(kind: PrincipalKind): Record<string, Operation> {
  const members = kind === 'account' ? '' : ' [--member ADDRESS ...]';
  const password = kind === 'account' ? ' [--password PW] [--legacy-logins on|off] [--admin]' : '';
  const settings = `[--name TEXT]${password} [--alias ADDRESS ...]${members}${kind === 'list' ? '' : ' [--quota BYTES]'}`;
  const existing = async ({ stores }: OperationContext, address: string) => {
    const principal = await stores.directory.principal(address);
    if (!principal || principal.kind !== kind) throw new OperationRefused(`there is no ${kind} ${address}`);
    return principal;
  };
  return {
    [`${kind} list`]: {
      usage: '',
      summary: `all ${kind}s`,
      run: async ({ stores }) => (await stores.directory.principals(kind)).map(principalRow),
    },
    [`${kind} show`]: {
      usage: 'ADDRESS',
      summary: `one ${kind}`,
      run: refusals(async (context, { positionals }) => {
        const principal = await existing(context, positionals[0]!);
        const usage = kind === 'list' ? {} : await context.stores.mail.usage(principal.id);
        return { ...principalRow(principal), ...usage };
      }),
    },
    [`${kind} create`]: {
      usage: `ADDRESS ${settings}`,
      summary: `make a ${kind}`,
      run: refusals(async ({ stores }, { positionals, flags }) => {
        const principal = await stores.directory.createPrincipal({
          kind,
          address: positionals[0]!,
          displayName: text(flags.name),
          password: text(flags.password),
          aliases: list(flags.alias),
          members: list(flags.member),
          quotaLimitBytes: byteCount(text(flags.quota)),
          isAdmin: flags.admin === true,
          keepsLegacySecret: legacyLogins(flags['legacy-logins']),
        });
        if (kind !== 'list') await stores.mail.ensureAccount(principal.id);
        return principalRow(principal);
      }),
    },
    [`${kind} update`]: {
      usage: `ADDRESS ${settings}`,
      summary: `change a ${kind}; --alias and --member replace all`,
      run: refusals(async (context, { positionals, flags }) => {
        await existing(context, positionals[0]!);
        const password = text(flags.password);
        const keepsLegacySecret = legacyLogins(flags['legacy-logins']);
        if (keepsLegacySecret === true && password === undefined) {
          throw new OperationRefused('what CRAM-MD5 and DIGEST-MD5 need is made of the password: give --password as well');
        }
        if (password !== undefined) await context.stores.directory.setPassword(positionals[0]!, password, { keepsLegacySecret });
        else if (keepsLegacySecret === false) await context.stores.directory.dropLegacySecret(positionals[0]!);
        const change = {
          ...(text(flags.name) === undefined ? {} : { displayName: text(flags.name)! }),
          ...(list(flags.alias) ? { aliases: list(flags.alias)! } : {}),
          ...(list(flags.member) ? { members: list(flags.member)! } : {}),
          ...(text(flags.quota) === undefined ? {} : { quotaLimitBytes: byteCount(text(flags.quota))! }),
          ...(flags.admin === true ? { isAdmin: true } : {}),
        };
        return principalRow(await context.stores.directory.updatePrincipal(positionals[0]!, change));
      }),
    },
    ...switchOperation(kind, 'enable', true, existing),
    ...switchOperation(kind, 'disable', false, existing),
    [`${kind} remove`]: {
      usage: 'ADDRESS',
      summary: `remove a ${kind}${kind === 'list' ? '' : ' and its mail'}`,
      run: refusals(async (context, { positionals }) => {
        await existing(context, positionals[0]!);
        const principal = await context.stores.directory.removePrincipal(positionals[0]!);
        if (kind !== 'list') await context.stores.mail.removeAccount(principal.id);
        return { removed: principal.address };
      }),
    },
  };
}

function switchOperation(
  kind: PrincipalKind,
  verb: string,
  isEnabled: boolean,
  existing: (context: OperationContext, address: string) => Promise<Principal>,
): Record<string, Operation> {
  return {
    [`${kind} ${verb}`]: {
      usage: 'ADDRESS',
      summary: `${verb} a ${kind}`,
      run: refusals(async (context, { positionals }) => {
        await existing(context, positionals[0]!);
        return principalRow(await context.stores.directory.updatePrincipal(positionals[0]!, { isEnabled }));
      }),
    },
  };
}

const domainOperations: Record<string, Operation> = {
  'domain list': { usage: '', summary: 'all local domains', run: async ({ stores }) => stores.directory.domains() },
  'domain create': {
    usage: 'NAME [--catch-all ADDRESS]',
    summary: 'take mail for a domain',
    run: refusals(async ({ stores }, { positionals, flags }) =>
      stores.directory.createDomain(positionals[0]!, { catchAll: text(flags['catch-all']) }),
    ),
  },
  'domain remove': {
    usage: 'NAME',
    summary: 'no longer take mail for a domain',
    run: refusals(async ({ stores }, { positionals }) => {
      await stores.directory.removeDomain(positionals[0]!);
      return { removed: positionals[0]! };
    }),
  },
};

const appPasswordOperations: Record<string, Operation> = {
  'account app-passwords': {
    usage: 'ADDRESS',
    summary: 'app passwords of an account',
    run: refusals(async ({ stores }, { positionals }) => stores.directory.appPasswords(positionals[0]!)),
  },
  'account add-app-password': {
    usage: 'ADDRESS NAME',
    summary: 'make an app password; it is shown once',
    run: refusals(async ({ stores }, { positionals }) => ({
      password: await stores.directory.createAppPassword(positionals[0]!, positionals[1]!),
    })),
  },
  'account remove-app-password': {
    usage: 'ADDRESS NAME',
    summary: 'revoke an app password',
    run: refusals(async ({ stores }, { positionals }) => {
      await stores.directory.removeAppPassword(positionals[0]!, positionals[1]!);
      return { removed: positionals[1]! };
    }),
  },
};

const minIdCharacters = 4;

/** The node whose id begins like this. */
function foundNode(nodes: Record<string, unknown>[], id: string): Record<string, unknown> {
  const wanted = id.toLowerCase();
  if (wanted.length < minIdCharacters) throw new OperationRefused(`give at least ${minIdCharacters} characters of a node's id`);
  const found = nodes.filter((node) => String(node.id).startsWith(wanted));
  if (found.length === 0) throw new OperationRefused(`there is no node ${id}`);
  if (found.length > 1) throw new OperationRefused(`several nodes have an id that begins with ${id}: give more of it`);
  return found[0]!;
}

const nodeOperations: Record<string, Operation> = {
  'node list': {
    usage: '',
    summary: 'the nodes of the cluster, as this one sees them',
    needsNode: true,
    run: (context) => requireNode(context).nodes(),
  },
  'node show': {
    usage: '[ID]',
    summary: 'this node, or another one of the cluster; the beginning of an id will do',
    needsNode: true,
    run: async (context, { positionals }) => {
      const nodes = await requireNode(context).nodes();
      const [id] = positionals;
      const found = id === undefined ? nodes[0]! : foundNode(nodes, id);
      return found === nodes[0] ? { ...found, ...(await requireNode(context).describe()) } : found;
    },
  },
  'node drain': {
    usage: '[ID]',
    summary: 'have this node, or another one, finish or hand back all work, then stop',
    needsNode: true,
    run: async (context, { positionals }) => {
      const node = requireNode(context);
      if (positionals[0] === undefined) {
        // Without a word to the store: it may be why this node is to go.
        node.drain();
        return { draining: true, id: (await node.describe()).id };
      }
      const nodes = await node.nodes();
      const found = foundNode(nodes, positionals[0]);
      const id = String(found.id);
      if (found === nodes[0]) node.drain();
      else if (!(await node.requestDrain(id))) throw new OperationRefused(`there is no node ${id} any more`);
      return { draining: true, id };
    },
  },
  'cert list': {
    usage: '',
    summary: 'certificates served',
    needsNode: true,
    run: async (context) => requireNode(context).certificates(),
  },
};

/** By name, one or two words. */
export const operations: Record<string, Operation> = {
  ...nodeOperations,
  ...storeOperations,
  ...queueOperations,
  ...explainOperations,
  ...banOperations,
  ...lookupOperations,
  ...searchOperations,
  ...settingsOperations,
  ...principalOperations('account'),
  ...appPasswordOperations,
  ...domainOperations,
  ...principalOperations('group'),
  ...principalOperations('list'),
};

/** The functions of expressions that ask the host: the directory, the name service, look-up lists, counters. */
import { type ExpressionHost, expressionLimits } from './contract.js';
import { type Answer, Complaint, type Evaluation, spend, type Value } from './evaluation.js';
import { both, type Call, type FunctionDefinition, type FunctionTable } from './functions.js';

const dnsTypes = ['A', 'AAAA', 'MX', 'PTR', 'TXT'];
const maxPeriodSeconds = 7 * 86_400;

function asking(
  name: string,
  parameters: readonly string[],
  result: string,
  ask: (host: ExpressionHost, args: readonly string[], seconds: number) => Promise<Value>,
  check?: (constants: readonly (Value | undefined)[]) => void,
): FunctionDefinition {
  const call: Call = (args, evaluation): Answer => {
    check?.(args);
    const host = hostOf(evaluation);
    return answered(name, () => ask(host, args as readonly string[], Number(args[2])), evaluation);
  };
  const prepare = (constants: readonly (Value | undefined)[]) => {
    check?.(constants);
    return call;
  };
  return { signatures: both(name, parameters, result), isOwn: true, asksHost: true, call, prepare };
}

function hostOf(evaluation: Evaluation): ExpressionHost {
  spend(evaluation, expressionLimits.hostCallSteps);
  if (!evaluation.host) throw new Complaint('there is nobody to ask at this stage');
  return evaluation.host;
}

async function answered(name: string, ask: () => Promise<Value>, evaluation: Evaluation): Promise<Value> {
  let value: Value;
  try {
    value = await ask();
  } catch (error) {
    throw new Complaint(`${name}: ${error instanceof Error ? error.message : String(error)}`, { cause: error });
  }
  if (Array.isArray(value)) spend(evaluation, value.length);
  return value;
}

function checkDns([, type]: readonly (Value | undefined)[]): void {
  if (type !== undefined && !dnsTypes.includes(String(type).toUpperCase()))
    throw new Complaint(`dns_query: the type is one of ${dnsTypes.join(', ')}`);
}

function checkList([list]: readonly (Value | undefined)[]): void {
  if (list !== undefined && !/^[a-z0-9-]{1,64}$/.test(String(list)))
    throw new Complaint("the name of a list has small letters, digits and '-'");
}

function checkCounter([name, , seconds]: readonly (Value | undefined)[]): void {
  if (name === undefined) throw new Complaint('counter: its name must not depend on variables (the key may)');
  if (!/^[a-z0-9.-]{1,64}$/.test(String(name))) throw new Complaint("counter: its name has small letters, digits, '.' and '-'");
  if (seconds !== undefined && !(Number(seconds) >= 1 && Number(seconds) <= maxPeriodSeconds))
    throw new Complaint(`counter: the period is from 1 to ${maxPeriodSeconds} seconds`);
}

export const hostFunctions: FunctionTable = new Map<string, FunctionDefinition>([
  [
    'is_local_domain/1',
    asking('is_local_domain', ['string'], 'bool', (host, [domain]) => host.isLocalDomain(domain!.toLowerCase())),
  ],
  ['is_local_address/1', asking('is_local_address', ['string'], 'bool', (host, [address]) => host.isLocalAddress(address!))],
  [
    'key_exists/2',
    asking(
      'key_exists',
      ['string', 'string'],
      'bool',
      (host, [list, key]) => host.keyExists(list!, key!.toLowerCase()),
      checkList,
    ),
  ],
  [
    'key_get/2',
    asking('key_get', ['string', 'string'], 'string', (host, [list, key]) => host.keyGet(list!, key!.toLowerCase()), checkList),
  ],
  [
    'dns_query/2',
    asking(
      'dns_query',
      ['string', 'string'],
      'list<string>',
      (host, [name, type]) => host.dnsQuery(name!, type!.toUpperCase()),
      checkDns,
    ),
  ],
  [
    'counter/3',
    asking(
      'counter',
      ['string', 'string', 'int'],
      'int',
      async (host, [name, key], seconds) => Math.trunc(await host.counter(name!, key!, seconds)),
      checkCounter,
    ),
  ],
]);

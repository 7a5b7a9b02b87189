/** What the settings' expressions choose for one delivery: route, TLS, addresses, limits. Never throws: what fails gives way to its default, and is logged. */
import { isIPv4, isIPv6 } from 'node:net';
import type { Clock, Logger } from '../../../ops/telemetry/index.js';
import {
  compiledSetting,
  createStageEvaluator,
  type ExpressionHost,
  type ExpressionSource,
  type ExpressionType,
  type ExpressionValues,
  type StageFacts,
  type StageSchema,
} from '../../expressions/index.js';
import type { AddressOrder, OutboundRate, OutboundSettings, TlsDemand } from './contract.js';
import {
  addressOrderStage,
  eightBitStage,
  heloNameStage,
  routeStage,
  sourceAddress4Stage,
  sourceAddress6Stage,
  throttleStages,
  tlsStage,
} from './declarations.js';

/** Put together only when an expression asks for them. */
export type Facts = () => Partial<StageFacts>;

export interface OutboundChoices {
  /** '' for the usual one. */
  routeName(settings: OutboundSettings, facts: Facts): string | Promise<string>;
  tls(settings: OutboundSettings, facts: Facts): TlsDemand | Promise<TlsDemand>;
  /** To send to `peer` (an address) from. Undefined: the system chooses. */
  sourceAddress(settings: OutboundSettings, peer: string, facts: Facts): Promise<string | undefined>;
  /** Undefined: the node's name. */
  heloName(settings: OutboundSettings, facts: Facts): Promise<string | undefined>;
  addressOrder(settings: OutboundSettings, facts: Facts): AddressOrder | Promise<AddressOrder>;
  eightBit(settings: OutboundSettings, facts: Facts): 'send' | 'return' | Promise<'send' | 'return'>;
  matches(rule: Pick<OutboundRate, 'match'>, facts: Facts): boolean | Promise<boolean>;
  keyOf(rule: Pick<OutboundRate, 'key'>, facts: Facts): string | Promise<string>;
}

/** EHLO takes a domain name or an address literal (RFC 5321 4.1.1.1). */
const heloForm =
  /^(?:[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?(?:\.[A-Za-z0-9](?:[A-Za-z0-9-]*[A-Za-z0-9])?)*|\[[0-9A-Za-z.:]+\])$/;

export function createChoices(d: { logger: Logger; clock: Clock; host?: ExpressionHost }): OutboundChoices {
  const { evaluateStage } = createStageEvaluator(d);
  const ask = <T extends ExpressionType>(setting: string, schema: StageSchema<T>, source: ExpressionSource, facts: Facts) => {
    const known = constantOf(schema, source);
    return known === undefined ? evaluateStage(setting, schema, source, facts()) : known;
  };
  return {
    routeName: ({ route }, facts) => (route === undefined ? '' : ask('outbound.route', routeStage, route, facts)),
    tls: ({ tls }, facts) => ask('outbound.tls', tlsStage, tls, facts) as TlsDemand | Promise<TlsDemand>,
    async sourceAddress({ sourceAddress4, sourceAddress6 }, peer, facts) {
      const isSix = isIPv6(peer);
      const source = isSix ? sourceAddress6 : sourceAddress4;
      if (source === undefined) return undefined;
      const stage = isSix ? sourceAddress6Stage : sourceAddress4Stage;
      const address = await ask(`outbound.sourceAddress${isSix ? 6 : 4}`, stage, source, facts);
      if ((isSix ? isIPv6 : isIPv4)(address)) return address;
      if (address !== '') d.logger.warn({ address, peer }, 'outbound.sourceAddress is no address of the family');
      return undefined;
    },
    async heloName({ heloName }, facts) {
      if (heloName === undefined) return undefined;
      const name = await ask('outbound.heloName', heloNameStage, heloName, facts);
      if (heloForm.test(name)) return name;
      if (name !== '') d.logger.warn({ name: name.slice(0, 100) }, 'outbound.heloName is no host name');
      return undefined;
    },
    addressOrder: ({ addressOrder }, facts) =>
      ask('outbound.addressOrder', addressOrderStage, addressOrder, facts) as AddressOrder | Promise<AddressOrder>,
    eightBit: ({ eightBit }, facts) =>
      ask('outbound.eightBit', eightBitStage, eightBit, facts) as 'send' | 'return' | Promise<'send' | 'return'>,
    matches: ({ match }, facts) => (match === undefined ? true : ask('outbound.rates.match', throttleStages.match, match, facts)),
    keyOf: ({ key }, facts) =>
      key === undefined ? (facts().rcpt_domain ?? '') : ask('outbound.rates.key', throttleStages.key, key, facts),
  };
}

/** The value of a setting that depends on nothing. */
function constantOf<T extends ExpressionType>(schema: StageSchema<T>, source: ExpressionSource): ExpressionValues[T] | undefined {
  try {
    return compiledSetting(schema, source).expression.constant;
  } catch {
    // Not for this release: evaluateStage says so, and gives the default.
    return undefined;
  }
}

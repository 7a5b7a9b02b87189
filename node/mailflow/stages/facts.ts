/** What expressions are told of a session and its transaction. Built only when there is an expression that asks. */
import type { MailCommand, RecipientCommand, SessionInfo } from '../../../protocols/smtp/server/handler.js';
import type { StageFacts } from '../../expressions/contract.js';
import { domainOfAddress } from '../addresses.js';

export type Facts = Partial<StageFacts>;

export interface NodeFacts {
  nodeId: string;
  hostname: string;
}

const protocols = { mx: 'smtp', submission: 'submission', lmtp: 'lmtp' } as const;

export function connectionFacts(session: SessionInfo, { nodeId, hostname }: NodeFacts): Facts {
  return {
    listener: session.listener ?? '',
    protocol: protocols[session.mode],
    remote_ip: session.remoteAddress,
    remote_port: session.remotePort,
    local_ip: session.localAddress ?? '',
    local_port: session.localPort,
    is_tls: session.secure,
    tls_version: session.tls?.protocol ?? '',
    helo: session.greetingName,
    authenticated_as: session.principal?.login ?? '',
    node_id: nodeId,
    hostname,
  };
}

/** @param sender as it is used (perhaps rewritten). */
export function mailFacts(session: SessionInfo, node: NodeFacts, mail: MailCommand, sender = mail.address): Facts {
  return {
    ...connectionFacts(session, node),
    sender,
    sender_domain: domainOfAddress(sender),
    size: mail.parameters.sizeBytes ?? 0,
    priority: mail.parameters.mtPriority ?? 0,
  };
}

export function recipientFacts(mail: Facts, recipient: RecipientCommand, recipientsSoFar: number): Facts {
  const { address } = recipient;
  return { ...mail, recipient: address, rcpt_domain: domainOfAddress(address), rcpt_count: recipientsSoFar };
}

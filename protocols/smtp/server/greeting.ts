/** The first word of a session, and of one that starts over with XCLIENT: the handler decides whether it is a welcome. */
import type { Timer } from '../../../ops/telemetry/index.js';
import { type Reply, reply } from '../grammar/reply.js';
import { draining, type GivenHello, type SessionCore } from './core.js';

const unavailable = reply(421, '4.3.0', 'A local error, please try again later');

interface GreetingSession extends SessionCore {
  readonly isClosing: boolean;
  readonly isDraining: boolean;
}

export class Greeting {
  /** The session may take commands: it has been greeted, or sent away. */
  done = false;
  #delay: Timer | undefined;

  /** `onDone` runs after each greeting and each refusal. */
  constructor(
    private readonly session: GreetingSession,
    private readonly serverName: string,
    private readonly onDone: () => void,
  ) {}

  /** Asks policy, waits `delayMs` as it may have set it, and greets. */
  begin(hello: GivenHello | undefined, delayMs: () => number) {
    const { session } = this;
    // The socket may have been lost before anybody listened to it.
    if (session.isClosing) return;
    const greet = () => {
      const waitMs = delayMs();
      if (waitMs > 0 && !session.isClosing)
        this.#delay = session.clock.setTimer(waitMs, () => this.#greet(hello), { background: true });
      else this.#greet(hello);
    };
    session.askPolicy(greet, () => this.#refuse(unavailable));
  }

  /** Nobody is there to be greeted any more. */
  stop() {
    this.#delay?.cancel();
  }

  #greet(hello: GivenHello | undefined) {
    const { session } = this;
    if (session.isClosing) return;
    session.run(
      'greet',
      () => session.handler.greet?.(session),
      (answer) => {
        if (session.isClosing) return;
        if (answer && answer.code >= 400) return this.#refuse(answer);
        if (hello) return this.#takeHello(hello, () => this.#say(answer?.text));
        this.#say(answer?.text);
      },
      { failed: () => this.#refuse(unavailable) },
    );
  }

  #takeHello({ name, extended }: GivenHello, done: () => void) {
    const { session } = this;
    session.run(
      'ehlo',
      () => session.handler.ehlo?.(session, name),
      (answer) => {
        if (answer && answer.code >= 400) return session.refuse('ehlo', answer);
        session.greetingName = name;
        session.extended = extended;
        session.askPolicy(done, () => this.#refuse(unavailable));
      },
    );
  }

  #say(text: Reply['text'] | undefined) {
    const { session } = this;
    this.done = true;
    if (session.isDraining) session.send(draining);
    else {
      const protocol = session.mode === 'lmtp' ? 'LMTP' : 'ESMTP';
      session.send({ code: 220, text: text ?? `${session.hostname} ${protocol} ${this.serverName}` });
    }
    this.onDone();
  }

  #refuse(answer: Reply) {
    this.done = true;
    this.session.refuse('connect', { ...answer, close: true });
    this.onDone();
  }
}

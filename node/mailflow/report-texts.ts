/**
 * The sentences of reports, by language. Data: administrators may replace each of them and add languages (`queue.reportTexts`). `{name}` stands for a value;
 * which ones a sentence may hold is in `reportPlaceholders`.
 */

/** Names of the sentences. */
export type ReportTextName =
  | 'greeting'
  | 'subjectFailed'
  | 'subjectDelayed'
  | 'subjectSuccess'
  | 'failed'
  | 'delayed'
  | 'success'
  | 'said'
  | 'delivered'
  | 'relayed'
  | 'expanded'
  | 'headerOnly'
  | 'whole';

/** What is missing is said in English. */
export type ReportTexts = Readonly<Partial<Record<ReportTextName, string>>>;

/** What may stand in each sentence. */
export const reportPlaceholders: Readonly<Record<ReportTextName, readonly string[]>> = {
  greeting: ['hostname'],
  subjectFailed: [],
  subjectDelayed: [],
  subjectSuccess: [],
  failed: ['hostname'],
  delayed: ['hostname', 'until'],
  success: ['hostname'],
  said: ['host'],
  delivered: [],
  relayed: [],
  expanded: [],
  headerOnly: [],
  whole: [],
};

export const defaultReportLanguages: readonly string[] = ['en'];

const en: Readonly<Record<ReportTextName, string>> = {
  greeting: 'This is the mail system at {hostname}.',
  subjectFailed: 'Undelivered mail returned to sender',
  subjectDelayed: 'Delayed mail (still being retried)',
  subjectSuccess: 'Successful mail delivery report',
  failed:
    'Your message could not be delivered to one or more recipients. It will not be tried again. The reasons are given below.',
  delayed:
    'Your message has not been delivered yet to the recipients below. You need not send it again: delivery will be tried until {until}.',
  success: 'Your message was delivered as you asked to be told.',
  said: '{host} said:',
  delivered: 'delivered',
  relayed: 'handed to a mail server that sends no reports of its own',
  expanded: 'passed on to the members of a group',
  headerOnly: 'The header of your message is attached.',
  whole: 'Your message is attached.',
};

export const reportTexts: Readonly<Record<string, ReportTexts>> = {
  en,
  de: {
    greeting: 'Dies ist das Mailsystem auf {hostname}.',
    subjectFailed: 'Nachricht nicht zustellbar, zurück an den Absender',
    subjectDelayed: 'Zustellung verzögert (weitere Versuche folgen)',
    subjectSuccess: 'Bericht: Nachricht zugestellt',
    failed:
      'Ihre Nachricht konnte einem oder mehreren Empfängern nicht zugestellt werden. Es folgen keine weiteren Versuche. Die Gründe stehen unten.',
    delayed:
      'Ihre Nachricht konnte den unten genannten Empfängern noch nicht zugestellt werden. Sie brauchen sie nicht noch einmal zu senden: Die Zustellung wird bis {until} versucht.',
    success: 'Ihre Nachricht wurde zugestellt; Sie hatten um diese Mitteilung gebeten.',
    said: '{host} antwortete:',
    delivered: 'zugestellt',
    relayed: 'an einen Mailserver übergeben, der selbst keine Berichte verschickt',
    expanded: 'an die Mitglieder einer Gruppe weitergegeben',
    headerOnly: 'Die Kopfzeilen Ihrer Nachricht sind beigefügt.',
    whole: 'Ihre Nachricht ist beigefügt.',
  },
  fr: {
    greeting: 'Ceci est le système de messagerie de {hostname}.',
    subjectFailed: 'Message non distribué, retourné à son expéditeur',
    subjectDelayed: 'Message retardé (de nouveaux essais suivront)',
    subjectSuccess: 'Rapport : message distribué',
    failed:
      'Votre message n’a pas pu être remis à un ou plusieurs destinataires. Il n’y aura pas d’autre essai. Les raisons sont données ci-dessous.',
    delayed:
      'Votre message n’a pas encore pu être remis aux destinataires ci-dessous. Il est inutile de le renvoyer : la remise sera tentée jusqu’au {until}.',
    success: 'Votre message a été remis ; vous aviez demandé à en être informé.',
    said: '{host} a répondu :',
    delivered: 'remis',
    relayed: 'transmis à un serveur qui n’envoie pas lui-même de rapports',
    expanded: 'transmis aux membres d’un groupe',
    headerOnly: 'Les en-têtes de votre message sont joints.',
    whole: 'Votre message est joint.',
  },
  es: {
    greeting: 'Este es el sistema de correo de {hostname}.',
    subjectFailed: 'Mensaje no entregado, devuelto al remitente',
    subjectDelayed: 'Mensaje retrasado (se seguirá intentando)',
    subjectSuccess: 'Informe: mensaje entregado',
    failed:
      'Su mensaje no se pudo entregar a uno o más destinatarios. No se volverá a intentar. Los motivos se indican a continuación.',
    delayed:
      'Su mensaje todavía no se ha podido entregar a los destinatarios indicados abajo. No hace falta que lo envíe de nuevo: se intentará la entrega hasta {until}.',
    success: 'Su mensaje fue entregado; usted pidió que se le avisara.',
    said: '{host} respondió:',
    delivered: 'entregado',
    relayed: 'pasado a un servidor que no envía informes',
    expanded: 'reenviado a los miembros de un grupo',
    headerOnly: 'Se adjunta la cabecera de su mensaje.',
    whole: 'Se adjunta su mensaje.',
  },
  it: {
    greeting: 'Questo è il sistema di posta di {hostname}.',
    subjectFailed: 'Messaggio non consegnato, restituito al mittente',
    subjectDelayed: 'Messaggio in ritardo (seguiranno altri tentativi)',
    subjectSuccess: 'Rapporto: messaggio consegnato',
    failed:
      'Non è stato possibile consegnare il messaggio a uno o più destinatari. Non ci saranno altri tentativi. I motivi sono indicati sotto.',
    delayed:
      'Il messaggio non è ancora stato consegnato ai destinatari indicati sotto. Non occorre inviarlo di nuovo: la consegna sarà tentata fino a {until}.',
    success: 'Il messaggio è stato consegnato; aveva chiesto di esserne informato.',
    said: '{host} ha risposto:',
    delivered: 'consegnato',
    relayed: 'passato a un server che non invia rapporti propri',
    expanded: 'inoltrato ai membri di un gruppo',
    headerOnly: 'In allegato le intestazioni del messaggio.',
    whole: 'In allegato il messaggio.',
  },
  nl: {
    greeting: 'Dit is het mailsysteem op {hostname}.',
    subjectFailed: 'Bericht niet bezorgd, terug naar afzender',
    subjectDelayed: 'Bericht vertraagd (er volgen nieuwe pogingen)',
    subjectSuccess: 'Rapport: bericht bezorgd',
    failed:
      'Uw bericht kon niet aan een of meer ontvangers worden bezorgd. Er volgen geen nieuwe pogingen. De redenen staan hieronder.',
    delayed:
      'Uw bericht is nog niet bezorgd aan de ontvangers hieronder. U hoeft het niet opnieuw te sturen: de bezorging wordt geprobeerd tot {until}.',
    success: 'Uw bericht is bezorgd; u had gevraagd dat te horen.',
    said: '{host} antwoordde:',
    delivered: 'bezorgd',
    relayed: 'doorgegeven aan een mailserver die zelf geen rapporten stuurt',
    expanded: 'doorgestuurd naar de leden van een groep',
    headerOnly: 'De kopregels van uw bericht zijn bijgevoegd.',
    whole: 'Uw bericht is bijgevoegd.',
  },
  pt: {
    greeting: 'Este é o sistema de correio de {hostname}.',
    subjectFailed: 'Mensagem não entregue, devolvida ao remetente',
    subjectDelayed: 'Mensagem atrasada (haverá novas tentativas)',
    subjectSuccess: 'Relatório: mensagem entregue',
    failed:
      'Não foi possível entregar a sua mensagem a um ou mais destinatários. Não haverá novas tentativas. Os motivos estão indicados abaixo.',
    delayed:
      'A sua mensagem ainda não foi entregue aos destinatários abaixo. Não é preciso enviá-la de novo: a entrega será tentada até {until}.',
    success: 'A sua mensagem foi entregue; pediu para ser informado.',
    said: '{host} respondeu:',
    delivered: 'entregue',
    relayed: 'passada a um servidor que não envia relatórios',
    expanded: 'reencaminhada aos membros de um grupo',
    headerOnly: 'O cabeçalho da sua mensagem segue em anexo.',
    whole: 'A sua mensagem segue em anexo.',
  },
  pl: {
    greeting: 'To jest system pocztowy na {hostname}.',
    subjectFailed: 'Wiadomość niedoręczona, zwrot do nadawcy',
    subjectDelayed: 'Opóźnienie w doręczeniu (będą kolejne próby)',
    subjectSuccess: 'Raport: wiadomość doręczona',
    failed: 'Wiadomości nie udało się doręczyć jednemu lub kilku odbiorcom. Kolejnych prób nie będzie. Przyczyny podano poniżej.',
    delayed:
      'Wiadomości nie doręczono jeszcze poniższym odbiorcom. Nie trzeba wysyłać jej ponownie: próby doręczenia potrwają do {until}.',
    success: 'Wiadomość została doręczona; prosili Państwo o to powiadomienie.',
    said: '{host} odpowiedział:',
    delivered: 'doręczono',
    relayed: 'przekazano serwerowi, który sam nie wysyła raportów',
    expanded: 'przekazano członkom grupy',
    headerOnly: 'Załączono nagłówki wiadomości.',
    whole: 'Załączono wiadomość.',
  },
  ja: {
    greeting: '{hostname} のメールシステムからのお知らせです。',
    subjectFailed: 'メールを配送できませんでした',
    subjectDelayed: 'メールの配送が遅れています(再試行中)',
    subjectSuccess: 'メール配送完了のお知らせ',
    failed: 'お送りになったメールは、一部またはすべての宛先に配送できませんでした。再試行は行いません。理由は次のとおりです。',
    delayed: 'お送りになったメールは、次の宛先にまだ配送されていません。送り直す必要はありません。{until} まで配送を試みます。',
    success: 'お送りになったメールは配送されました。ご依頼によりお知らせします。',
    said: '{host} の応答:',
    delivered: '配送済み',
    relayed: '配送状況を通知しないサーバーに引き渡しました',
    expanded: 'グループのメンバーに転送しました',
    headerOnly: 'メールのヘッダーを添付します。',
    whole: 'メールを添付します。',
  },
};

/** Why `text` can't be this sentence; undefined when it can. */
export function reportTextProblem(name: ReportTextName, text: string): string | undefined {
  const allowed = reportPlaceholders[name];
  for (const [found, placeholder] of text.matchAll(/\{([^{}]*)\}/g)) {
    if (!allowed.includes(placeholder!)) {
      const may =
        allowed.length > 0 ? `only ${allowed.map((one) => `{${one}}`).join(', ')} may stand there` : 'nothing may stand there';
      return `${found} means nothing here: ${may}`;
    }
  }
  if (/[\x00-\x08\x0b-\x1f\x7f]/.test(text)) return 'control characters may not stand in it';
  if (name.startsWith('subject') && /[\r\n]/.test(text)) return 'a subject is one line';
  return undefined;
}

/** A sentence in a language, with its values. */
export function reportText(
  texts: Readonly<Record<string, ReportTexts>>,
  language: string,
  name: ReportTextName,
  values: Readonly<Record<string, string>> = {},
): string {
  const template = texts[language]?.[name] ?? texts[primary(language)]?.[name] ?? texts['en']?.[name] ?? en[name];
  return template.replace(/\{(\w+)\}/g, (whole, key: string) => values[key] ?? whole);
}

/** `de` of `de-AT`. */
const primary = (language: string) => language.split('-', 1)[0]!.toLowerCase();

/** The languages of `wanted` in which there is anything to say; the default ones when there is none. */
export function knownLanguages(texts: Readonly<Record<string, ReportTexts>>, wanted: readonly string[]): readonly string[] {
  const known = [...new Set(wanted)].filter((language) => texts[language] ?? texts[primary(language)]);
  return known.length > 0 ? known.slice(0, maxLanguages) : defaultReportLanguages;
}

const maxLanguages = 5;

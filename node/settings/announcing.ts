/** Settings that tell when they were changed through this node; what other nodes change is not told. */
import type { NodeSettings } from './sections.js';

/** `onChanged` is called after each change that was asked for here, also when it failed: its outcome may be unknown. */
export function announcingSettings(settings: NodeSettings, onChanged: () => void): NodeSettings {
  return {
    get current() {
      return settings.current;
    },
    get version() {
      return settings.version;
    },
    opened: (name) => settings.opened(name),
    explicit: () => settings.explicit(),
    onChange: (listener) => settings.onChange(listener),
    change: (edit, options) => settings.change(edit, options).finally(onChanged),
    rollback: (version, options) => settings.rollback(version, options).finally(onChanged),
    history: (options) => settings.history(options),
    show: (version) => settings.show(version),
    refresh: (options) => settings.refresh(options),
    reseal: () => settings.reseal().finally(onChanged),
    follow: () => settings.follow(),
    close: () => settings.close(),
  };
}

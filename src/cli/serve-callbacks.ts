/** The options of `sluice serve` that are about callbacks. */
import { resolve } from 'node:path'
import type { CallbackOptions } from '../index.ts'
import type { Input, Option } from './command.ts'

export const CALLBACK_OPTIONS: Readonly<Record<string, Option>> = {
  'callback-allow': {
    type: 'string',
    value: 'RANGE',
    multiple: true,
    text: 'Addresses that callbacks may go to although they are not public, such as 10.0.0.0/8. May be given again.',
  },
  'webhook-secret-file': {
    type: 'string',
    value: 'FILE',
    text: 'The secrets that sign callbacks, one a line. Default: webhook-secret in the data folder, made if it is not there',
  },
  'no-callbacks': { type: 'boolean', text: 'Send no callbacks from here; they wait in the queue sluice.callbacks.' },
}

/** What `open` is told; undefined: nothing is sent, since it is not wanted, or there is no folder (null) for a secret. */
export function callbackOptions(input: Input, folder: string | null): CallbackOptions | undefined {
  const file = input.value('webhook-secret-file')
  if (input.has('no-callbacks') || (file === undefined && folder === null)) return undefined
  const allow = input.values('callback-allow')
  return file === undefined ? { allow } : { allow, secretFile: resolve(file) }
}

/** What is said of them at the start. */
export function tellCallbacks(callbacks: CallbackOptions | undefined, folder: string | null): string {
  if (callbacks === undefined) return folder === null ? 'not sent: give --webhook-secret-file' : 'not sent from here'
  const { secretFile, allow = [] } = callbacks
  const shown =
    secretFile === undefined
      ? `\`sluice webhook-secret --data ${folder}\` shows the secret`
      : `signed with ${secretFile}`
  return `${shown}; sent to public addresses${allow.length === 0 ? '' : ` and ${allow.join(', ')}`}`
}

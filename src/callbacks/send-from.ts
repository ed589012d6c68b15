/** The option `callbacks` of `open`. */
import { join } from 'node:path'
import type { Sluice } from '../sluice.ts'
import { ensureSecretFile, SECRET_FILE } from './secrets.ts'
import { type CallbackOptions, sendCallbacks } from './sender.ts'

/**
 * Starts sending, where that is asked for. Where no secret is given, the data folder keeps one; `folder` null: there is
 * none. What is wrong with the options closes the Sluice again.
 */
export async function sendFrom(
  sluice: Sluice,
  callbacks: CallbackOptions | undefined,
  folder: string | null,
): Promise<Sluice> {
  if (callbacks === undefined) return sluice
  try {
    const isGiven = callbacks.secrets !== undefined || callbacks.secretFile !== undefined || folder === null
    sendCallbacks(sluice, isGiven ? callbacks : { ...callbacks, secretFile: keepSecret(folder) })
    return sluice
  } catch (error) {
    await sluice.close()
    throw error
  }
}

function keepSecret(folder: string): string {
  const path = join(folder, SECRET_FILE)
  ensureSecretFile(path)
  return path
}

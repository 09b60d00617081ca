// Where the provider keeps what it issued: in memory, nothing is thrown away before its time. The
// provider's own store in memory forgets the oldest of a thousand entries, which would look like a revocation.

const entries = new Map(); // "Model:id" -> { payload, until (ms) }

const key = (model, id) => `${model}:${id}`;

export class Store {
  constructor(model) {
    this.model = model;
  }

  async upsert(id, payload, expiresIn) {
    const until = typeof expiresIn === 'number' ? Date.now() + expiresIn * 1000 : Infinity;
    entries.set(key(this.model, id), { payload, until });
  }

  async find(id) {
    const entry = entries.get(key(this.model, id));
    return entry && entry.until > Date.now() ? entry.payload : undefined;
  }

  #findBy(field, value) {
    for (const [name, { payload }] of entries) {
      if (name.startsWith(`${this.model}:`) && payload[field] === value) return payload;
    }
    return undefined;
  }

  async findByUid(uid) {
    return this.#findBy('uid', uid);
  }

  async findByUserCode(userCode) {
    return this.#findBy('userCode', userCode);
  }

  async consume(id) {
    const payload = await this.find(id);
    if (payload) payload.consumed = Math.floor(Date.now() / 1000);
  }

  async destroy(id) {
    entries.delete(key(this.model, id));
  }

  async revokeByGrantId(grantId) {
    for (const [name, { payload }] of entries) {
      if (payload.grantId === grantId) entries.delete(name);
    }
  }
}

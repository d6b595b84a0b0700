// The engine of the server's page: it asks the server.

// There is no answer; try again after some seconds.
export class Busy extends Error {
  constructor(message, seconds) {
    super(message);
    this.seconds = seconds;
  }
}

export class ServerEngine {
  #busy;

  // The message while the server does not answer.
  constructor(busy) {
    this.#busy = busy;
  }

  async list() {
    const response = await fetch("models");
    return response.ok ? response.json() : [];
  }

  // Predict what a canvas shows with a model.
  predict(canvas, model) {
    return this.#ask("predict", canvas, model);
  }

  // Explain that prediction: the evidence for it as an image.
  explain(canvas, model) {
    return this.#ask("explain", canvas, model);
  }

  async #ask(what, canvas, model) {
    const response = await fetch(`models/${encodeURIComponent(model)}/${what}`, {
      method: "POST",
      headers: { "Content-Type": "image/png" },
      body: await canvas.convertToBlob({ type: "image/png" }),
    }).catch(() => null);
    if (response?.ok) return response.json();
    const { detail = this.#busy } = (await response?.json().catch(() => null)) ?? {};
    throw new Busy(detail, Number(response?.headers.get("Retry-After")) || 1);
  }
}

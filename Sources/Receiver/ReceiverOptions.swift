import Logging
import WebhookSignature

/// What `martlet receive` can be told.
package struct ReceiverOptions: Sendable {
  package var host: String
  /// 0 lets the system choose.
  package var port: UInt16
  /// The status of every answer that does not fail on purpose, 200 to 599.
  package var status: Int
  /// How long to wait before every answer.
  package var delay: Duration
  /// The share of deliveries answered 500, 0 to 1.
  package var failRate: Double
  /// `whsec_…` or `whpk_…`. Several during a rotation; none to check nothing.
  package var secrets: [String]

  package init(
    host: String = "127.0.0.1",
    port: UInt16 = 9000,
    status: Int = 200,
    delay: Duration = .zero,
    failRate: Double = 0,
    secrets: [String] = []
  ) {
    self.host = host
    self.port = port
    self.status = status
    self.delay = delay
    self.failRate = failRate
    self.secrets = secrets
  }

  /// Checks what a person may have typed wrong.
  ///
  /// - Throws: ``ReceiverError/invalidOption(message:)``, which never contains a secret.
  package func validate() throws(ReceiverError) {
    guard (200...599).contains(status) else {
      throw .invalidOption(message: "--status must be between 200 and 599, not \(status)")
    }
    guard failRate >= 0, failRate <= 1 else {
      throw .invalidOption(message: "--fail-rate must be between 0 and 1, not \(failRate)")
    }
    guard delay >= .zero, delay <= .seconds(24 * 3600) else {
      throw .invalidOption(message: "--delay must be between 0 s and one day")
    }
    _ = try verifier()
  }

  /// A verifier for the secrets, nil if there are none.
  package func verifier() throws(ReceiverError) -> WebhookVerifier? {
    guard !secrets.isEmpty else { return nil }
    do {
      return WebhookVerifier(keys: try secrets.map { try VerificationKey(parsing: $0) })
    } catch {
      throw .invalidOption(message: "the secret is not usable: \(error)")
    }
  }

  /// The receiver that `martlet receive` runs.
  ///
  /// - Parameters:
  ///   - logger: For the HTTP server's own messages.
  ///   - random: Decides which answers fail.
  ///   - output: Takes one line per delivery, without line break; called from any thread, one call at a time.
  package func makeReceiver(
    logger: Logger = Logger(label: "martlet.receiver", factory: { _ in SwiftLogNoOpLogHandler() }),
    random: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator(),
    output: @escaping @Sendable (String) -> Void
  ) throws(ReceiverError) -> Receiver {
    try validate()
    let handler = LoggingHandler(options: self, random: random, output: output)
    return Receiver(
      host: host,
      port: port,
      verifier: try verifier(),
      logger: logger,
      handler: { handler.reply(to: $0) }
    )
  }
}

import Synchronization

/// Answers as the options say and writes one line per delivery.
package final class LoggingHandler: Sendable {
  /// How many ids are remembered to recognise repeated deliveries.
  package static let rememberedIDLimit = 10_000

  private struct State {
    var random: any RandomNumberGenerator & Sendable
    var answered = RecentIDs(limit: LoggingHandler.rememberedIDLimit)
  }

  private let options: ReceiverOptions
  private let output: @Sendable (String) -> Void
  private let state: Mutex<State>

  /// - Parameters:
  ///   - random: Decides which answers fail; with a seed, the same ones every time deliveries come in the same order.
  ///   - output: Takes one line per delivery, without line break; one call at a time.
  package init(
    options: ReceiverOptions,
    random: any RandomNumberGenerator & Sendable = SystemRandomNumberGenerator(),
    output: @escaping @Sendable (String) -> Void
  ) {
    self.options = options
    self.output = output
    state = Mutex(State(random: random))
  }

  /// The answer to one delivery. 401 where there is a secret and the signature does not hold; 500 for the share that
  /// is to fail; otherwise the chosen status after the chosen delay.
  package func reply(to delivery: ReceivedDelivery) -> Reply {
    // The line is written under the lock, so that lines come whole and in the order of the decisions.
    state.withLock { state in
      let isDuplicate = delivery.webhookID.map { state.answered.contains($0) } ?? false
      let reply = reply(to: delivery.verification, random: &state.random)
      // "Answered" before the answer is on the wire: if the client is gone by then, its next try is marked as a
      // duplicate, and that is what it is to a receiver that has done its work.
      if (200..<300).contains(reply.status), let id = delivery.webhookID { state.answered.insert(id) }
      output(LogLine.text(delivery, reply: reply, isDuplicate: isDuplicate))
      return reply
    }
  }

  private func reply(
    to verification: ReceivedDelivery.Verification,
    random: inout any RandomNumberGenerator & Sendable
  ) -> Reply {
    if !options.secrets.isEmpty, verification != .verified {
      return Reply(status: 401)
    }
    if options.failRate > 0, Double(random.next() >> 11) * 0x1p-53 < options.failRate {
      return Reply(status: 500, delay: options.delay)
    }
    return Reply(status: options.status, delay: options.delay)
  }
}

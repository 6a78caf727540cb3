import Foundation

/// An attempt that nobody knows the outcome of, though no fault was made: what the engine wrote down of it then.
///
/// It explains one repetition, of this very delivery, after it. The receiver alone decides what is a repetition.
struct Mishap: Sendable {
  /// One row of history.
  struct Entry: Hashable {
    /// ``Cause/timeout`` or ``Cause/lease``.
    var cause: Cause
    var pair: Pair
    /// The id of the lease under which it was sent.
    var dispatcher: Int64
    /// By the database's clock, seconds since 1970.
    var writtenAt: Double
  }

  var entry: Entry
  /// When it was written down: the delivery could not be sent again before.
  var at: ContinuousClock.Instant

  /// Those of one second and one dispatcher together. A dispatcher that was counted while it stood still is bounded by
  /// that count, and gets nothing on top.
  static func caught(_ mishaps: [Mishap], except victims: Set<Int64>) -> [Caught] {
    struct Group: Hashable {
      var cause: Cause
      var dispatcher: Int64
      var second: Int
    }
    guard let origin = mishaps.first?.at else { return [] }
    let kept = mishaps.filter { $0.entry.cause != .lease || !victims.contains($0.entry.dispatcher) }
    let groups = Dictionary(grouping: kept) { mishap in
      Group(
        cause: mishap.entry.cause,
        dispatcher: mishap.entry.dispatcher,
        second: Int((mishap.at - origin).seconds.rounded(.down))
      )
    }
    return groups.map { group, mishaps in
      Caught(
        cause: group.cause,
        began: mishaps.map(\.at).min() ?? origin,
        codes: mishaps.map(\.entry.pair.code)
      )
    }.sorted { $0.began < $1.began }
  }
}

/// A delivery in the engine's queue, in its order; `key` only where order matters.
struct Waiting: Sendable {
  var pair: Pair
  var key: String?

  /// Which of them can have been sent: without a key any; of a key those that arrived, and the first that did not.
  static func reached(_ waiting: [Waiting], _ arrived: Set<Pair>) -> Set<Pair> {
    struct Key: Hashable {
      var endpoint: Int
      var key: String
    }
    var blocked: Set<Key> = []
    return Set(
      waiting.filter { one in
        guard let key = one.key.map({ Key(endpoint: one.pair.endpoint, key: $0) }) else { return true }
        guard !blocked.contains(key) else { return false }
        if !arrived.contains(one.pair) { blocked.insert(key) }
        return true
      }.map(\.pair)
    )
  }
}

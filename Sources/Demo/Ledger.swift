import Foundation

/// A request as a receiver noted it.
struct Arrival: Sendable {
  var id: UUID
  /// What it answered; nil if it never did.
  var status: Int?
  var at: ContinuousClock.Instant
  /// Byte for byte what the first request with this id carried, at whichever endpoint.
  var bodyIsSame = true
}

/// Holds three accounts of the same events against each other: the application's, each receiver's, and the database's.
struct Ledger {
  struct Account {
    var target: Target
    var subscribed: Set<UUID>
    // The receiver's:
    var arrivals: [Arrival] = []
    var refusedCount = 0
    // The database's:
    var delivered: Set<UUID> = []
    /// Dead letters, with their reasons.
    var dead: [UUID: String] = [:]
    var waiting: Set<UUID> = []

    func answered(_ status: Int) -> Set<UUID> { Set(arrivals.filter { $0.status == status }.map(\.id)) }

    /// Subscribed, and neither received nor given up nor kept.
    var lost: Set<UUID> {
      guard target != .legacy else { return [] }  // Disabled by its first answer, it was passed by from then on.
      return subscribed.subtracting(answered(200)).subtracting(dead.keys).subtracting(waiting)
    }
  }

  /// The application's: in the order of commits, as far as they share a key.
  var published: [(id: UUID, key: String?)]
  var rolledBack: Set<UUID>
  var accounts: [Account]
  var killedAt: ContinuousClock.Instant

  /// What does not agree, in sentences. Empty is the proof.
  func differences() -> [String] {
    let committed = Set(published.map(\.id))
    return accounts.flatMap { account in
      let said = (arrivals: Set(account.arrivals.map(\.id)), answered: account.answered(200))
      var found: [(what: String, events: Set<UUID>)] = [
        ("received, though rolled back", said.arrivals.intersection(rolledBack)),
        ("received, though never published", said.arrivals.subtracting(committed).subtracting(rolledBack)),
        ("arrived with another body than before", Set(account.arrivals.filter { !$0.bodyIsSame }.map(\.id))),
        (
          "delivered, says the database, but the receiver never answered 200",
          account.delivered.subtracting(said.answered)
        ),
        ("answered 200, but not delivered, says the database", said.answered.subtracting(account.delivered)),
        ("delivered and dead-lettered", account.delivered.intersection(account.dead.keys)),
      ]
      let dead = Set(account.dead.keys)
      switch account.target {
      case .billing, .warehouse, .analytics:
        found.append(("published, but never received", account.subscribed.subtracting(said.answered)))
        found.append(("dead-lettered, though the endpoint works", dead))
        found.append(("still waiting", account.waiting))
      case .legacy:
        let gone = account.answered(410)
        found.append(
          ("answered 410, but neither dead-lettered nor kept", gone.subtracting(dead).subtracting(account.waiting))
        )
        found.append(("dead-lettered without a 410", dead.subtracting(gone)))
        found.append(("dead-lettered, but not as gone", Set(account.dead.filter { $0.value != "gone" }.keys)))
      case .partner:
        found.append(("published, but not dead-lettered", account.subscribed.subtracting(dead)))
        found.append(("dead-lettered, but not as exhausted", Set(account.dead.filter { $0.value != "exhausted" }.keys)))
        found.append(("still waiting", account.waiting))
      }
      if account.target == .warehouse { found.append(("out of order", outOfOrder(account.arrivals))) }
      var sentences = found.filter { !$0.events.isEmpty }.map { what, events in
        let named = events.prefix(3).map { $0.uuidString.lowercased() }.joined(separator: ", ")
        return "\(account.target.name): \(events.count) \(what): \(named)\(events.count > 3 ? ", …" : "")"
      }
      if account.refusedCount > 0 {
        sentences.append("\(account.target.name): \(account.refusedCount) requests without a valid signature")
      }
      return sentences
    }
  }

  /// Events that came before their predecessor of the same key had been answered 200, or after a successor had come.
  func outOfOrder(_ arrivals: [Arrival]) -> Set<UUID> {
    var place: [UUID: (key: String, index: Int)] = [:]
    var count: [String: Int] = [:]
    for case (let id, let key?) in published {
      place[id] = (key, count[key, default: 0])
      count[key, default: 0] += 1
    }
    var answered: Set<UUID> = []
    /// Per key: how many have been answered 200, all of them from the first on, and the latest that has come.
    var progress: [String: (done: Int, latest: Int)] = [:]
    var found: Set<UUID> = []
    for arrival in arrivals {
      guard let (key, index) = place[arrival.id] else { continue }
      var state = progress[key, default: (0, 0)]
      if index > state.done || index < state.latest { found.insert(arrival.id) }
      state.latest = max(state.latest, index)
      if arrival.status == 200, answered.insert(arrival.id).inserted, index == state.done { state.done += 1 }
      progress[key] = state
    }
    return found
  }

  /// Repeated answers of 200 to the same id: how many there were, and how many of them the kill explains. It does if the
  /// first was given shortly before (its outcome died with the dispatcher) and the repetition came after.
  func duplicates(_ account: Account) -> (count: Int, aroundKill: Int) {
    var last: [UUID: ContinuousClock.Instant] = [:]
    var duplicates = (count: 0, aroundKill: 0)
    for arrival in account.arrivals where arrival.status == 200 {
      if let earlier = last[arrival.id] {
        duplicates.count += 1
        if arrival.at > killedAt, earlier > killedAt - .seconds(2) { duplicates.aroundKill += 1 }
      }
      last[arrival.id] = arrival.at
    }
    return duplicates
  }
}

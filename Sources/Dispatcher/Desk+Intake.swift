import DeliveryCore
import OutboxStore
import Postgres

extension Desk {
  /// What intake does next.
  func nextIntake() -> IntakePlan.Action {
    let now = now
    return withState { state in
      guard state.outcomes.count < limits.unrecorded else { return .wait(.milliseconds(20)) }
      // While a record is repeated it must stay clear why we hold what it is about; see `holdsAnew`. Once recorded, a
      // delivery may be due again, or the next of its key: so nobody sleeps through that.
      let action = state.plan.next(
        state.flight,
        mayClaim: !state.isRepeatingRecord,
        mayWatch: state.outcomes.isEmpty && state.recording.isEmpty,
        at: now
      )
      if case .waitForRoom(let endpoint, let slots, _) = action {
        state.intakeAwaits = (endpoint, slots)
      } else {
        state.intakeAwaits = nil
      }
      return action
    }
  }

  func looked(_ waiting: [(endpoint: Int64, dueIn: Duration)]) {
    let now = now
    withState { state in
      state.plan.looked(waiting, at: now)
      state.plan.forget(except: state.flight.busyEndpoints, at: now)
    }
  }

  /// The snapshot at which there was nothing to cut; nil if there may be something.
  var exhaustedAt: String? { withState { $0.exhaustedAt } }

  /// Notes a poll's snapshot. A cut that came back empty saw all that the poll before it saw, so until the snapshot changes
  /// there is nothing to cut. (It may also have given way to another dispatcher that was cutting; should that one stop
  /// there and then without a trace, `IntakePlan.Limits.cutEvery` brings the next cut.)
  func polled(_ snapshot: String) {
    let now = now
    withState { state in
      state.plan.polled(hasNews: snapshot != state.exhaustedAt, at: now)
      state.polledAt = snapshot
    }
  }

  /// Notes a cut and returns the deliveries in it.
  func took(_ cut: Cut?, dispatcher: Int64) -> [Held] {
    let now = now
    withState { state in
      let direct = cut?.direct.reduce(0) { $0 + $1.endpoints.count } ?? 0
      let pairs = direct + (cut?.parked ?? 0)
      state.plan.cut(events: cut?.events, pairs: pairs, more: cut?.more ?? false, at: now)
      if cut == nil { state.exhaustedAt = state.polledAt }
      guard let cut else { return }
      state.counters.cuts += 1
      state.counters.eventsCut += cut.events
      state.counters.parked += cut.parked
      for endpoint in cut.claimable { state.plan.waits(endpoint: endpoint, delay: .zero, at: now) }
    }
    guard let cut else { return [] }
    return cut.direct.flatMap { direct in
      direct.endpoints.map {
        Held(
          event: direct.event,
          endpoint: $0,
          batch: cut.batch,
          attempts: 0,
          age: .zero,
          takenAt: now,
          dispatcher: dispatcher
        )
      }
    }
  }

  /// Notes a claim and returns the deliveries in it.
  func took(_ claim: Claim, asked endpoints: [Int64], slots: [Int], dispatcher: Int64) -> [Held] {
    let now = now
    var yields: [Int64: IntakePlan.Yield] = [:]
    for delivery in claim.deliveries {
      yields[delivery.endpoint, default: .init()].count += 1
      yields[delivery.endpoint, default: .init()].latestDue = max(
        yields[delivery.endpoint, default: .init()].latestDue,
        delivery.dueAt.microsecondsSince2000
      )
    }
    withState { state in
      state.plan.claimed(yields, asked: endpoints, slots: slots, again: claim.again, at: now)
      state.counters.claimed += claim.deliveries.count
    }
    return claim.deliveries.map {
      Held(
        event: $0.event,
        endpoint: $0.endpoint,
        batch: nil,
        attempts: $0.attempts,
        age: $0.age,
        takenAt: now,
        dispatcher: dispatcher
      )
    }
  }

  /// The database ended a cut that took longer than a statement may.
  func cutTookTooLong() { withState { $0.plan.cutTookTooLong() } }

  /// Endpoints of which something is queued or in flight, with the version of the settings we go by.
  func busyEndpoints() -> [(id: Int64, version: Int64)] {
    withState { state in
      state.flight.busyEndpoints.sorted().map { (id: $0, version: state.endpoints[$0]?.version ?? -1) }
    }
  }

  /// Endpoints whose settings we do not have in the version named, or have had so long that a secret may have expired.
  func unknown(_ endpoints: [(id: Int64, version: Int64)]) -> [Int64] {
    let now = now
    return withState { state in
      Set(
        endpoints.filter { id, version in
          guard let known = state.endpoints[id] else { return true }
          return known.version < version || now > known.learnedAt + .seconds(60)
        }.map(\.id)
      ).sorted()
    }
  }

  /// The settings of the endpoints asked for; those that are not among them are gone. What is queued for an endpoint that
  /// wants nothing now goes back untried, and so does what was queued under another rate limit. Returns why nothing can be
  /// sent to some, where that is news.
  func learned(_ settings: [EndpointSettings], asked ids: [Int64]) -> [(endpoint: Int64, problem: String)] {
    let now = now
    let endpoints = settings.map { Endpoint($0, egress: egress, keyring: keyring, learnedAt: now) }
    let (wakeRecorder, news) = withState { state in
      let timestamp = Int(state.serverTime.seconds + (now - state.serverTime.at) / .seconds(1))
      let news = endpoints.compactMap { endpoint -> (endpoint: Int64, problem: String)? in
        guard let problem = endpoint.problem(at: timestamp),
          problem != state.endpoints[endpoint.id]?.problem(at: timestamp)
        else { return nil }
        return (endpoint.id, problem.words)
      }
      let limits = ids.map { state.endpoints[$0]?.rateLimit }
      for id in ids { state.endpoints[id] = nil }
      for endpoint in endpoints { state.endpoints[endpoint.id] = endpoint }
      for (id, limit) in zip(ids, limits)
      where state.endpoints[id]?.isEnabled != true || state.endpoints[id]?.rateLimit != limit {
        for held in state.flight.withdraw(endpoint: id) {
          state.note(Outcome(held, .returned, tried: false))
        }
      }
      return (takeRecorderWakeUp(&state), news)
    }
    if wakeRecorder { recordBell.ring() }
    return news
  }
}

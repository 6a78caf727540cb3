import Foundation

/// Holds what the publishers saw commit against what the receiver saw arrive. Nothing else decides.
struct Account {
  var journal: Journal.State
  var arrivals: [Mailbox.Arrival]
  var incidents: [Incident]
  var mishaps: [Mishap] = []

  struct Result: Sendable {
    var expected = 0
    var delivered = 0
    var lost: [Pair] = []
    var phantoms: [Pair] = []
    /// Arrivals after one that was answered 200.
    var duplicates = 0
    var unexplained: [Pair] = []
    /// By cause: as many may there be as were in flight.
    var injections: [Injections] = []
    var misordered: [Pair] = []
    /// Pairs that came under several ids.
    var renamed: [Pair] = []

    /// A few of those that should not be.
    var suspects: [Pair] { Array((lost + phantoms + unexplained + misordered).prefix(3)) }
  }

  func settle() -> Result {
    var result = Result()
    let expected = Set(
      journal.committed.keys.flatMap { event in Mailbox.paths.indices.map { Pair(event: event, endpoint: $0) } }
    )
    let answered = Set(arrivals.filter(\.isAccepted).map(\.pair))
    result.expected = expected.count
    result.delivered = answered.intersection(expected).count
    result.lost = Array(expected.subtracting(answered))
    result.phantoms = Array(Set(arrivals.map(\.pair)).subtracting(expected))
    findDuplicates(&result)
    result.misordered = misordered()
    return result
  }

  private func findDuplicates(_ result: inout Result) {
    let victims = incidents.reduce(into: Set()) { $0.formUnion($1.victims) }
    // Last the faults: what one of them explains is its.
    let caught =
      Mishap.caught(mishaps, except: victims)
      + incidents.map { incident in
        var pairs = incident.inFlight
        if incident.coversArrivals {
          pairs.formUnion(arrivals.lazy.filter { (incident.began...incident.ended).contains($0.at) }.map(\.pair))
        }
        return Caught(cause: .fault(incident.fault), began: incident.began, codes: pairs.map(\.code))
      }
    var ids: [Pair: UUID] = [:]
    var answered: Set<Pair> = []
    var repetitions: [(code: UInt64, at: ContinuousClock.Instant)] = []
    for arrival in arrivals {
      let pair = arrival.pair
      if let id = ids[pair], id != arrival.id { result.renamed.append(pair) }
      ids[pair] = arrival.id
      if answered.contains(pair) { repetitions.append((pair.code, arrival.at)) }
      if arrival.isAccepted { answered.insert(pair) }
    }
    let explanation = Explanation(repetitions, caught)
    result.duplicates = repetitions.count
    result.unexplained = explanation.unexplained
    result.injections = Injections.lines(caught, explanation)
  }

  /// What came to an ordered endpoint before its predecessor of the same key had been answered 200. A repetition of what
  /// had been answered is a duplicate, and judged as such.
  private func misordered() -> [Pair] {
    var done: [Int: [String: Int]] = [:]
    var answered: Set<Pair> = []
    var found: [Pair] = []
    for arrival in arrivals where Mailbox.ordered.contains(arrival.pair.endpoint) {
      guard let place = journal.committed[arrival.pair.event]?.place else { continue }
      let (key, index) = (place.key, place.index)
      let next = done[arrival.pair.endpoint]?[key] ?? 0
      if index > next { found.append(arrival.pair) }
      if arrival.isAccepted, answered.insert(arrival.pair).inserted, index == next {
        done[arrival.pair.endpoint, default: [:]][key] = next + 1
      }
    }
    return found
  }

  /// What there is to know of a pair, in the order of time.
  func timeline(of pair: Pair) -> [String] {
    guard let origin = arrivals.first?.at else { return [] }
    let name = "event \(pair.event) at \(Mailbox.paths[pair.endpoint])"
    let place = journal.committed[pair.event]?.place.map { ", number \($0.index) of key \($0.key)" } ?? ""
    let came = arrivals.filter { $0.pair == pair }
      .map { ($0.at, "\(name)\(place) arrived (\($0.id)), and was answered \($0.isAccepted ? 200 : 500)") }
    let struck = incidents.map { incident in
      let caught = incident.inFlight.contains(pair) ? ", which caught it in flight" : ""
      return (incident.began, "\(incident.fault.rawValue)\(caught), until \((incident.ended - origin).seconds) s")
    }
    return (came + struck).sorted { $0.0 < $1.0 }.map { "\(($0.0 - origin).seconds) s: \($0.1)" }
  }

  /// The longest time in which nothing at all arrived, while publishers were at work.
  func longestPause(until end: ContinuousClock.Instant) -> Duration {
    let times = arrivals.map(\.at).filter { $0 < end }.sorted()
    return zip(times, times.dropFirst() + [end]).map { $1 - $0 }.max() ?? .zero
  }
}

import Foundation

/// What a fault caught in flight: so much may come again, once each.
struct Caught: Sendable {
  var fault: Fault
  var began: ContinuousClock.Instant
  /// Codes of pairs, sorted: a few bytes each, since there may be thousands an hour.
  var codes: [UInt64]

  init(_ incident: Incident) {
    (fault, began) = (incident.fault, incident.began)
    codes = incident.inFlight.map(\.code).sorted()
  }

  init(fault: Fault, began: ContinuousClock.Instant, codes: [UInt64]) {
    (self.fault, self.began, self.codes) = (fault, began, codes.sorted())
  }

  fileprivate func index(of code: UInt64) -> Int? {
    var (low, high) = (0, codes.count)
    while low < high {
      let middle = (low + high) / 2
      if codes[middle] < code { low = middle + 1 } else { high = middle }
    }
    return low < codes.count && codes[low] == code ? low : nil
  }
}

/// Which fault each repetition is due to.
struct Explanation {
  /// As many as there are faults: repetitions of what it caught.
  private(set) var observed: [Int]
  private(set) var unexplained: [Pair] = []
  private(set) var unexplainedCount = 0

  /// The latest fault before a repetition that caught it explains it, each fault once.
  init(_ repetitions: [(code: UInt64, at: ContinuousClock.Instant)], _ caught: [Caught]) {
    observed = [Int](repeating: 0, count: caught.count)
    var used: Set<[Int]> = []
    for repetition in repetitions {
      let fault = caught.indices.reversed().first { index in
        guard caught[index].began <= repetition.at, let place = caught[index].index(of: repetition.code) else {
          return false
        }
        return used.insert([index, place]).inserted
      }
      if let fault {
        observed[fault] += 1
      } else {
        unexplainedCount += 1
        if unexplained.count < 5 { unexplained.append(Pair(code: repetition.code)) }
      }
    }
  }
}

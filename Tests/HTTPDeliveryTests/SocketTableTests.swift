import CLibCurl
import Glibc
import Testing

@testable import HTTPDelivery

/// A kept-alive connection stays in the epoll set between two exchanges; what the kernel has forgotten is told to it again.
@Suite struct SocketTableTests {
  @Test func whatIsWatchedAlreadyNeedNotBeToldAgain() throws {
    let (table, descriptor) = try connection()
    defer { close(descriptor) }
    #expect(!table.pause(descriptor), "how it was watched before it was a connection is not known")
    #expect(!table.resume(descriptor, 1))
    #expect(table.pause(descriptor))
    #expect(table.resume(descriptor, 1))
    #expect(!table.resume(descriptor, 5), "for something else")
    #expect(table.isWanted(descriptor))
  }

  /// The peer has closed it, or sends what nobody asked for: told once, it would be told for ever.
  @Test func whatHappensBetweenExchangesTakesTheSocketOutOfTheSet() throws {
    let (table, descriptor) = try connection()
    defer { close(descriptor) }
    _ = table.resume(descriptor, 1)
    _ = table.pause(descriptor)
    #expect(!table.isWanted(descriptor))
    #expect(!table.resume(descriptor, 1), "it has to be put in again")
    #expect(table.isWanted(descriptor))
  }

  /// The next connection may get the number of the last.
  @Test func aClosedSocketIsForgotten() throws {
    let (table, descriptor) = try connection()
    _ = table.resume(descriptor, 1)
    #expect(SocketTable.close(Unmanaged.passUnretained(table).toOpaque(), descriptor) == 0)
    #expect(!table.resume(descriptor, 1))
    #expect(!table.pause(descriptor))
  }

  @Test func socketsThatAreNoConnectionsAreAlwaysWanted() {
    let table = SocketTable()
    #expect(table.isWanted(3) && !table.resume(3, 1) && !table.pause(3))
  }

  /// A bound socket stands for one that is connected: the table knows sockets by their local ports.
  private func connection() throws -> (SocketTable, Int32) {
    let descriptor = socket(AF_INET, Int32(SOCK_STREAM.rawValue), 0)
    var address = sockaddr_in()
    address.sin_family = sa_family_t(AF_INET)
    address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
    var length = socklen_t(MemoryLayout<sockaddr_in>.size)
    let isBound = withUnsafeMutablePointer(to: &address) { pointer in
      pointer.withMemoryRebound(to: sockaddr.self, capacity: 1) {
        bind(descriptor, $0, length) == 0 && getsockname(descriptor, $0, &length) == 0
      }
    }
    try #require(isBound)
    let table = SocketTable()
    let port = Int32(UInt16(bigEndian: address.sin_port))
    let ends = SocketTable.Ends(remoteAddress: "127.0.0.1", remotePort: 80, localPort: port)
    table.insert([descriptor], ends)
    #expect(table.descriptor(ends) == descriptor)
    return (table, descriptor)
  }
}

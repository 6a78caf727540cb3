import CLibCurl
import Glibc

/// Which socket each connection uses. libcurl 7.88 tells it only once a transfer has ended, so this remembers the sockets by
/// the names of their two ends. Touched by the engine thread alone; it must outlive every connection.
final class SocketTable {
  struct Ends: Hashable {
    let remoteAddress: String
    let remotePort: Int32
    let localPort: Int32
  }

  private struct Connection {
    let ends: Ends
    /// What the epoll set watches the socket for; zero if it is not in the set.
    var watched: UInt32 = 0
    /// libcurl wants to be told. Between two exchanges it does not.
    var isWanted = false
  }

  private var descriptors: [Ends: Int32] = [:]
  private var connections: [Int32: Connection] = [:]

  func descriptor(_ ends: Ends) -> Int32? { descriptors[ends] }

  // A connection's socket stays in the epoll set between two exchanges, which saves the kernel two calls for each.

  /// libcurl wants to be told of this. True if the set watches for just that already.
  func resume(_ descriptor: Int32, _ mask: UInt32) -> Bool {
    guard var connection = connections[descriptor] else { return false }
    let isWatched = connection.watched == mask
    connection.watched = mask
    connection.isWanted = true
    connections[descriptor] = connection
    return isWatched
  }

  /// libcurl wants to be told of nothing. True if the socket may stay in the set.
  func pause(_ descriptor: Int32) -> Bool {
    guard let connection = connections[descriptor], connection.watched != 0 else { return false }
    connections[descriptor]?.isWanted = false
    return true
  }

  /// Something has happened on a socket. False if nobody wants to know, and it must leave the set: it would go on and on.
  func isWanted(_ descriptor: Int32) -> Bool {
    guard let connection = connections[descriptor], connection.watched != 0, !connection.isWanted else { return true }
    connections[descriptor]?.watched = 0
    return false
  }

  /// One of these, opened for a new connection, has become it.
  func insert(_ opened: [Int32], _ ends: Ends) {
    guard let descriptor = opened.first(where: { Self.localPort($0) == ends.localPort }) else { return }
    remove(descriptor)
    descriptors[ends] = descriptor
    connections[descriptor] = Connection(ends: ends)
  }

  private func remove(_ descriptor: Int32) {
    guard let former = connections.removeValue(forKey: descriptor)?.ends, descriptors[former] == descriptor else {
      return
    }
    descriptors.removeValue(forKey: former)
  }

  /// Called by libcurl for every socket it is done with.
  static let close: curl_closesocket_callback = { context, descriptor in
    if let context { Unmanaged<SocketTable>.fromOpaque(context).takeUnretainedValue().remove(descriptor) }
    return Glibc.close(descriptor)
  }

  private static func localPort(_ descriptor: Int32) -> Int32? {
    var address = sockaddr_storage()
    var length = socklen_t(MemoryLayout<sockaddr_storage>.size)
    return withUnsafeMutableBytes(of: &address) { bytes in
      guard let start = bytes.baseAddress,
        getsockname(descriptor, start.assumingMemoryBound(to: sockaddr.self), &length) == 0
      else { return nil }
      // The port stands at the same place for both families.
      return Int32(UInt16(bigEndian: start.load(fromByteOffset: 2, as: UInt16.self)))
    }
  }
}

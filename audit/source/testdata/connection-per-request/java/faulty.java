package org.acme.users;

import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.SQLException;
import redis.clients.jedis.Jedis;

@RestController
public class UserController {
    @GetMapping("/users/{id}")
    public User one(@PathVariable long id) throws SQLException {
        try (Connection c = DriverManager.getConnection(url, "app", "hunter2")) { // want
            return load(c, id);
        }
    }

    private User load(Connection c, long id) {
        Jedis jedis = new Jedis("cache"); // want
        return null;
    }
}

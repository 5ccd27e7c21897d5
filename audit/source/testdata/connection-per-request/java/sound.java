package org.acme.users;

import com.zaxxer.hikari.HikariDataSource;
import java.sql.Connection;
import java.sql.DriverManager;
import javax.sql.DataSource;

@Configuration
public class Database {
    @Bean
    DataSource dataSource() {
        return new HikariDataSource();
    }

    // DriverManager.getConnection(url)
    public static void main(String[] args) throws Exception {
        Connection c = DriverManager.getConnection(args[0]);
    }
}

@Repository
class Users {
    private final DataSource pool;

    Users(DataSource pool) {
        this.pool = pool;
    }

    User one(long id) throws SQLException {
        try (Connection c = pool.getConnection()) {
            return load(c, "DriverManager.getConnection");
        }
    }
}
